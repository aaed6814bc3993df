//! How links are driven: one way, from several tasks, over several links, and there and back.
//!
//! Owns the tasks of a measurement. Sender and receiver are tasks of their own on a runtime with two
//! workers; time runs from before the first message is handed to the sender until the receiver has
//! checked the last.

use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::{Check, Lane, Receiver, Sender};

/// The runtime of all measurements: a worker for each end.
pub fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system has threads to give")
}

/// One way: the receiver's links in order, each with what it checks.
struct Inflow<R> {
    receiver: R,
    check: Check,
}

/// Receives `count` messages.
async fn take<R: Receiver>(mut inflow: Inflow<R>, count: u64) -> Inflow<R> {
    let mut got = 0;
    while got < count {
        got += inflow.receiver.receive(&mut inflow.check).await.expect("the link holds");
    }
    assert_eq!(got, count, "more came than was sent");
    inflow
}

/// Messages from one task over one link.
pub fn one_way<S: Sender, R: Receiver>(
    runtime: &Runtime,
    size: usize,
    link: (S, R),
) -> impl FnMut(u64) -> Duration {
    round_robin(runtime, size, vec![link])
}

/// Messages from one task over several links in turn, each with a receiving task of its own.
pub fn round_robin<S: Sender, R: Receiver>(
    runtime: &Runtime,
    size: usize,
    links: Vec<(S, R)>,
) -> impl FnMut(u64) -> Duration {
    let lanes = Lane::several(links.len(), size);
    let (senders, receivers): (Vec<_>, Vec<_>) = links.into_iter().unzip();
    let inflows = receivers.into_iter().zip(&lanes);
    let mut inflows: Vec<Inflow<R>> = inflows
        .map(|(receiver, lane)| {
            // Each receiver has one lane, and so its number does not matter to it.
            Inflow { receiver, check: Check::new(std::slice::from_ref(lane)) }
        })
        .collect();
    let mut outflow = Some((senders, vec![0; lanes.len()]));
    let handle = runtime.handle().clone();
    move |units| {
        let all = lanes.len() as u64;
        let share = |link: usize| units / all + u64::from((link as u64) < units % all);
        let (mut senders, mut sent) = outflow.take().expect("the last round has ended");
        let lanes = lanes.clone();
        handle.block_on(async {
            let began = Instant::now();
            let mut receiving = Vec::new();
            for (link, inflow) in inflows.drain(..).enumerate() {
                receiving.push(tokio::spawn(take(inflow, share(link))));
            }
            let sending = tokio::spawn(async move {
                let mut left = units;
                'all: loop {
                    for (link, sender) in senders.iter_mut().enumerate() {
                        if left == 0 {
                            break 'all;
                        }
                        sender.send(&lanes[link], sent[link]).await.expect("the link holds");
                        sent[link] += 1;
                        left -= 1;
                    }
                }
                for sender in &mut senders {
                    sender.finish().await.expect("the link holds");
                }
                (senders, sent)
            });
            outflow = Some(sending.await.expect("the sender ends"));
            for task in receiving {
                inflows.push(task.await.expect("the receiver ends"));
            }
            began.elapsed()
        })
    }
}

/// Messages from as many tasks as there are senders, which share one connection.
pub fn shared<S: Sender, R: Receiver>(
    runtime: &Runtime,
    size: usize,
    senders: Vec<S>,
    receivers: Vec<R>,
) -> impl FnMut(u64) -> Duration {
    let lanes = Lane::several(senders.len(), size);
    let all = lanes.len();
    // Either a receiver for each sender, or one for all.
    let per_receiver = all / receivers.len();
    let mut inflows: Vec<Inflow<R>> = receivers
        .into_iter()
        .zip(lanes.chunks(per_receiver))
        .map(|(receiver, lanes)| Inflow { receiver, check: Check::new(lanes) })
        .collect();
    let mut outflows: Vec<(S, Lane, u64)> =
        senders.into_iter().zip(lanes).map(|(sender, lane)| (sender, lane, 0)).collect();
    let handle = runtime.handle().clone();
    move |units| {
        let all = outflows.len() as u64;
        let share = |task: usize| units / all + u64::from((task as u64) < units % all);
        handle.block_on(async {
            let began = Instant::now();
            let mut receiving = Vec::new();
            for (at, inflow) in inflows.drain(..).enumerate() {
                let first = at * per_receiver;
                let count = (first..first + per_receiver).map(share).sum();
                receiving.push(tokio::spawn(take(inflow, count)));
            }
            let mut sending = Vec::new();
            for (task, (mut sender, lane, mut at)) in outflows.drain(..).enumerate() {
                let end = at + share(task);
                sending.push(tokio::spawn(async move {
                    while at < end {
                        sender.send(&lane, at).await.expect("the link holds");
                        at += 1;
                    }
                    sender.finish().await.expect("the link holds");
                    (sender, lane, at)
                }));
            }
            for task in sending {
                outflows.push(task.await.expect("the sender ends"));
            }
            for task in receiving {
                inflows.push(task.await.expect("the receiver ends"));
            }
            began.elapsed()
        })
    }
}

/// Messages there and back, one at a time.
pub fn round_trips<A, B>(
    runtime: &Runtime,
    size: usize,
    link: (A, B),
) -> impl FnMut(u64) -> Duration
where
    A: Sender + Receiver,
    B: Sender + Receiver,
{
    let lanes = Lane::several(1, size);
    let mut at = 0;
    let (there, back) = (Check::new(&lanes), Check::new(&lanes));
    let mut ends = Some((link.0, back, link.1, there));
    let handle = runtime.handle().clone();
    move |units| {
        let (mut near, mut back, mut far, mut there) =
            ends.take().expect("the last round has ended");
        let (first, last) = (at, at + units);
        at = last;
        let [asking, answering] = [lanes[0].clone(), lanes[0].clone()];
        handle.block_on(async {
            let began = Instant::now();
            let echo = tokio::spawn(async move {
                for at in first..last {
                    far.receive(&mut there).await.expect("the link holds");
                    far.send(&answering, at).await.expect("the link holds");
                    far.finish().await.expect("the link holds");
                }
                (far, there)
            });
            let ask = tokio::spawn(async move {
                for at in first..last {
                    near.send(&asking, at).await.expect("the link holds");
                    near.finish().await.expect("the link holds");
                    near.receive(&mut back).await.expect("the link holds");
                }
                (near, back)
            });
            let (near, back) = ask.await.expect("the asking side ends");
            let (far, there) = echo.await.expect("the answering side ends");
            let time = began.elapsed();
            ends = Some((near, back, far, there));
            time
        })
    }
}

/// `units` jobs, `at_once` of them under way at any moment.
pub fn in_flight<F>(
    runtime: &Runtime,
    at_once: usize,
    job: impl Fn(usize) -> F + Clone + Send + 'static,
) -> impl FnMut(u64) -> Duration
where
    F: Future<Output = ()> + Send,
{
    let handle = runtime.handle().clone();
    move |units| {
        let share =
            |at: usize| units / at_once as u64 + u64::from((at as u64) < units % at_once as u64);
        handle.block_on(async {
            let began = Instant::now();
            let mut tasks = JoinSet::new();
            for place in 0..at_once {
                let (count, job) = (share(place), job.clone());
                tasks.spawn(async move {
                    for _ in 0..count {
                        job(place).await;
                    }
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.expect("the jobs end");
            }
            began.elapsed()
        })
    }
}
