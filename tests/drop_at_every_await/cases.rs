//! The futures: each public one, where it begins, and what must hold when it was dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use noise_pool::error::{DialError, SendErrorKind};
use noise_pool::event::PoolEvent;
use noise_pool::snapshot::DialPhase;
use noise_pool::{Disconnect, Message, Role, SendOptions, Target};
use tokio::time::Instant;

use super::support::net::{ByByte, address};
use super::support::{alive_tasks, confirmed, identity, soon, until};
use super::world::SILENT;
use super::world::World;
use super::{Case, Step, beside};

fn nothing(_: &mut World) -> Step<'_> {
    Box::pin(async {})
}

fn connected(world: &mut World) -> Step<'_> {
    Box::pin(world.connect())
}

/// Connected, and one message was sent.
fn sent(world: &mut World) -> Step<'_> {
    Box::pin(async {
        world.connect().await;
        let message = world.message();
        world.lease.take().unwrap().send(message.clone()).await.unwrap();
        world.accepted.push(message);
    })
}

/// Connected as `how` says; B sends three messages.
fn spoken_to<'a>(world: &'a mut World, how: for<'b> fn(&'b mut World) -> Step<'b>) -> Step<'a> {
    Box::pin(async move {
        how(world).await;
        world.to_a = (0..3).map(|_| world.message()).collect();
        let (back, messages) = (world.b.get(&world.a.id()).unwrap(), world.to_a.clone());
        beside(async move {
            for message in messages {
                back.send(message).await.unwrap();
            }
        });
    })
}

/// Connected, and the queue is full until the stream has moved something.
fn full_for_now(world: &mut World) -> Step<'_> {
    Box::pin(async {
        world.connect().await;
        while world.offer().is_ok() {}
        assert!(world.accepted.len() > 1);
    })
}

/// Nobody waits in A at the very moment of the drop: a dial is gone with its caller, unless the peer
/// may have accepted it already.
pub(crate) fn nobody_waits(world: &mut World, _: bool) -> Step<'_> {
    let dials = world.a.snapshot().dials;
    let committed = |phase| matches!(phase, DialPhase::Committed | DialPhase::Superseded);
    assert!(dials.iter().all(|dial| dial.waiters == 0 && committed(dial.phase)), "{dials:?}");
    Box::pin(async {})
}

fn listens(world: &mut World, done: bool) -> Step<'_> {
    Box::pin(async move { assert_eq!(world.a.local_addrs().len(), usize::from(done)) })
}

/// The event that a session opened comes once, to the future or to whoever reads next.
fn opened_once(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async {
        let opened = |event: &PoolEvent| matches!(event, PoolEvent::Opened { .. });
        until("a session", || world.b.contains(&world.a.id())).await;
        let events = world.events.as_mut().unwrap();
        world.told.extend(std::iter::from_fn(|| events.try_recv()).map(Result::unwrap));
        assert_eq!(world.told.iter().filter(|event| opened(event)).count(), 1);
    })
}

/// Whoever asks next is told, too.
fn told_of_the_end(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async { _ = soon("the end", world.lease.as_ref().unwrap().closed()).await })
}

/// A pool that drains ends, and its identity may come back.
fn drained(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async {
        soon("the drain's end", world.a.drain(Duration::from_secs(5))).await;
        world.restart().await;
    })
}

fn closed(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async {
        world.cut = true;
        world.restart().await;
    })
}

/// A dial that nobody waits for stops at once, however long its peer is silent.
fn stops_at_once(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let snapshot = world.a.snapshot();
        assert_eq!((snapshot.dials.len(), snapshot.limits.dials.held), (0, 0));
        assert_eq!(alive_tasks(), world.tasks);
    })
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "Pool::listen",
        before: nothing,
        future: |world| {
            Box::pin(async {
                world.a.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
            })
        },
        after: listens,
        steps: 1,
    },
    Case {
        name: "Pool::get_or_dial",
        before: nothing,
        future: |world| Box::pin(async { drop(world.a.get_or_dial(world.b.id()).await.unwrap()) }),
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::get_or_dial of a silent peer",
        before: |world| Box::pin(async { world.tasks = alive_tasks() }),
        future: |world| {
            Box::pin(async {
                let target = Target::new(identity(SILENT).peer_id());
                let call = world.a.get_or_dial(target.timeout(Duration::from_millis(20))).await;
                assert!(matches!(call, Err(DialError::Deadline)));
            })
        },
        after: stops_at_once,
        steps: 20,
    },
    Case {
        name: "Pool::get_or_dial_with",
        before: nothing,
        future: |world| {
            Box::pin(async {
                let (net, own, to) = (world.net.clone(), world.a.id(), address(world.b.id(), 1));
                let open = move || async move { net.connect(own, &to).await };
                drop(world.a.get_or_dial_with(world.b.id(), open).await.unwrap());
            })
        },
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::get_exclusive",
        before: nothing,
        future: |world| {
            Box::pin(async { drop(world.a.get_exclusive(world.b.id()).await.unwrap()) })
        },
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::get_exclusive behind a lease",
        before: |world| {
            Box::pin(async {
                world.connect().await;
                assert_eq!(world.offer(), Ok(()));
                let lease = world.lease.take().unwrap();
                beside(async move { lease.flush().await.unwrap() });
            })
        },
        future: |world| {
            Box::pin(async { drop(world.a.get_exclusive(world.b.id()).await.unwrap()) })
        },
        after: nobody_waits,
        steps: 50,
    },
    Case {
        name: "Pool::adopt as initiator",
        before: nothing,
        future: |world| {
            Box::pin(async {
                let (near, far) = ByByte::pair(world.net.steps());
                let b = world.b.clone();
                beside(async move { drop(b.adopt(far, Role::Responder).await) });
                let peer = world.b.id();
                drop(world.a.adopt(near, Role::Initiator { peer }).await.unwrap());
            })
        },
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::adopt as responder",
        before: nothing,
        future: |world| {
            Box::pin(async {
                let (near, far) = ByByte::pair(world.net.steps());
                let (b, peer) = (world.b.clone(), world.a.id());
                beside(async move { drop(b.adopt(far, Role::Initiator { peer }).await) });
                drop(world.a.adopt(near, Role::Responder).await.unwrap());
            })
        },
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::send",
        before: nothing,
        future: |world| {
            Box::pin(async {
                let message = world.message();
                world.under_way = Some(message.clone());
                world.a.send(world.b.id(), message.clone()).await.unwrap();
                world.accepted.push(message);
            })
        },
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::drain",
        before: sent,
        future: |world| {
            Box::pin(async {
                let report = world.a.drain(Duration::from_secs(5)).await;
                assert_eq!(report.messages.delivered, confirmed(1));
            })
        },
        after: drained,
        steps: 100,
    },
    Case {
        name: "Pool::drain_peer",
        before: sent,
        future: |world| {
            Box::pin(async {
                let report = world.a.drain_peer(&world.b.id(), Duration::from_secs(5)).await;
                assert_eq!(report.messages.delivered, confirmed(1));
            })
        },
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Pool::close",
        before: sent,
        future: |world| Box::pin(world.a.close()),
        after: closed,
        steps: 2,
    },
    Case {
        name: "Lease::send on a full queue",
        before: full_for_now,
        future: |world| {
            Box::pin(async {
                let message = world.message();
                world.lease.as_ref().unwrap().send(message.clone()).await.unwrap();
                world.accepted.push(message);
            })
        },
        after: nobody_waits,
        steps: 2,
    },
    Case {
        name: "Lease::send_with until a deadline",
        before: |world| Box::pin(world.fill()),
        future: |world| {
            Box::pin(async {
                let message = world.message();
                let deadline = Instant::now() + Duration::from_millis(20);
                let options = SendOptions::default().deadline(deadline.into());
                let sending = world.lease.as_ref().unwrap().send_with(message, options);
                assert_eq!(sending.await.unwrap_err().kind, SendErrorKind::Expired);
            })
        },
        after: nobody_waits,
        steps: 20,
    },
    Case {
        name: "Lease::flush",
        before: full_for_now,
        future: |world| Box::pin(async { world.lease.as_ref().unwrap().flush().await.unwrap() }),
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Lease::ping",
        before: connected,
        future: |world| Box::pin(async { _ = world.lease.as_ref().unwrap().ping().await.unwrap() }),
        after: nobody_waits,
        steps: 50,
    },
    Case {
        name: "Lease::closed",
        before: |world| {
            Box::pin(async {
                world.connect().await;
                let (b, a) = (world.b.clone(), world.a.id());
                beside(async move { assert!(b.disconnect(&a, Disconnect::drain())) });
            })
        },
        future: |world| Box::pin(async { _ = world.lease.as_ref().unwrap().closed().await }),
        after: told_of_the_end,
        steps: 50,
    },
    Case {
        name: "ExclusiveLease::recv",
        before: |world| spoken_to(world, |world| Box::pin(world.connect_exclusively())),
        future: |world| {
            Box::pin(async {
                while world.heard.len() < world.to_a.len() {
                    let message = world.exclusive.as_mut().unwrap().recv().await;
                    world.heard.push(message.unwrap());
                }
            })
        },
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Inbox::recv",
        before: |world| spoken_to(world, connected),
        future: |world| {
            Box::pin(async {
                while world.heard.len() < world.to_a.len() {
                    world.heard.push(world.a_inbox.recv().await.unwrap().body);
                }
            })
        },
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Inbox::recv_many",
        before: |world| spoken_to(world, connected),
        future: |world| {
            Box::pin(async {
                while world.heard.len() < world.to_a.len() {
                    let mut some = Vec::new();
                    assert!(world.a_inbox.recv_many(&mut some, 2).await > 0);
                    world.heard.extend(some.into_iter().map(|message: Message| message.body));
                }
            })
        },
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Events::recv",
        before: |world| {
            Box::pin(async {
                world.events = Some(world.b.subscribe());
                let (a, b) = (world.a.clone(), world.b.id());
                beside(async move { drop(a.get_or_dial(b).await.unwrap()) });
            })
        },
        future: |world| {
            Box::pin(async {
                let opened = |event: &PoolEvent| matches!(event, PoolEvent::Opened { .. });
                while !world.told.iter().any(opened) {
                    world.told.push(world.events.as_mut().unwrap().recv().await.unwrap().unwrap());
                }
            })
        },
        after: opened_once,
        steps: 100,
    },
];
