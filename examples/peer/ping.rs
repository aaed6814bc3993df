//! `peer ping`: round-trip times inside the session, printed as `ping` prints them.
//!
//! Owns the statistics. The times include no handshake: the session is opened once, and again only if
//! it is lost.

use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use noise_pool::{PeerAddress, Pool};
use tokio::time::{MissedTickBehavior, interval};

use crate::listen::print_line;
use crate::{DRAIN_AT_MOST, Failure, Node, chain, interrupts};

#[derive(Args)]
pub(crate) struct Ping {
    /// Whom and where: <peer>@<addr>
    target: PeerAddress,
    /// Stop after so many [default: at Ctrl-C]
    #[arg(short, long, value_name = "N")]
    count: Option<NonZeroU32>,
    /// Seconds from one to the next, at least 0.2: a peer ends a session that pings much faster
    #[arg(short, long, value_name = "SECS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    #[command(flatten)]
    node: Node,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if !(0.2..=3600.0).contains(&seconds) {
        return Err("expected 0.2 to 3600 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl Ping {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let (pool, _inbox) = self.node.open()?;
        let mut interrupts = interrupts()?;
        let began = Instant::now();
        let mut times = RoundTrips::default();
        tokio::select! {
            biased;
            _ = interrupts.recv() => {}
            outcome = self.ping(&pool, &mut times) => outcome?,
        }
        let peer = self.target.peer;
        print_line(&format!("\n--- {peer} ping statistics ---"))?;
        print_line(&times.summary(began.elapsed()))?;
        pool.drain(DRAIN_AT_MOST).await;
        Ok(match times.answered {
            0 => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        })
    }

    async fn ping(&self, pool: &Pool, times: &mut RoundTrips) -> Result<(), Failure> {
        // The first dial's failure ends the program, as with a name that cannot be resolved.
        let dialled = Instant::now();
        let lease = pool.get_or_dial(self.target.clone()).await?;
        let ms = millis(dialled.elapsed());
        print_line(&format!("PING {}: session opened in {ms:.1} ms", self.target))?;
        drop(lease);

        let mut tick = interval(self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for seq in 1..=self.count.map_or(u32::MAX, NonZeroU32::get) {
            tick.tick().await;
            times.sent += 1;
            match once(pool, &self.target).await {
                Ok(time) => {
                    times.record(time);
                    let peer = self.target.peer.short();
                    let ms = millis(time);
                    print_line(&format!("pong from {peer}: seq={seq} time={ms:.3} ms"))?;
                }
                Err(error) => print_line(&format!("seq={seq} {}", chain(error.as_ref())))?,
            }
        }
        Ok(())
    }
}

/// One round trip, over whatever session there is now.
async fn once(pool: &Pool, target: &PeerAddress) -> Result<Duration, Failure> {
    let lease = pool.get_or_dial(target.clone()).await?;
    Ok(lease.ping().await?)
}

/// Sums from which `ping`'s last line is made; no single time is kept.
#[derive(Default)]
struct RoundTrips {
    sent: u32,
    answered: u32,
    min: f64,
    max: f64,
    sum: f64,
    sum_of_squares: f64,
}

impl RoundTrips {
    fn record(&mut self, time: Duration) {
        let ms = millis(time);
        self.min = if self.answered == 0 { ms } else { self.min.min(ms) };
        self.max = self.max.max(ms);
        self.sum += ms;
        self.sum_of_squares += ms * ms;
        self.answered += 1;
    }

    /// `mdev` is the standard deviation, as in `ping`.
    fn summary(&self, elapsed: Duration) -> String {
        let lost = self.sent - self.answered;
        let percent = match self.sent {
            0 => 0.0,
            sent => 100.0 * f64::from(lost) / f64::from(sent),
        };
        let mut text = format!(
            "{} sent, {} answered, {percent:.0}% lost, time {:.0} ms",
            self.sent,
            self.answered,
            millis(elapsed)
        );
        if self.answered > 0 {
            let n = f64::from(self.answered);
            let avg = self.sum / n;
            // Rounding can take the difference just below zero.
            let mdev = (self.sum_of_squares / n - avg * avg).max(0.0).sqrt();
            text += &format!(
                "\nrtt min/avg/max/mdev = {:.3}/{avg:.3}/{:.3}/{mdev:.3} ms",
                self.min, self.max
            );
        }
        text
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_that_of_ping() {
        let mut times = RoundTrips::default();
        for ms in [1, 2, 3] {
            times.sent += 1;
            times.record(Duration::from_millis(ms));
        }
        times.sent += 1;
        assert_eq!(
            times.summary(Duration::from_secs(3)),
            "4 sent, 3 answered, 25% lost, time 3000 ms\n\
             rtt min/avg/max/mdev = 1.000/2.000/3.000/0.816 ms"
        );
    }

    #[test]
    fn nothing_sent_is_no_division_by_zero() {
        let summary = RoundTrips::default().summary(Duration::ZERO);
        assert_eq!(summary, "0 sent, 0 answered, 0% lost, time 0 ms");
    }

    #[test]
    fn the_interval_is_bounded() {
        assert_eq!(seconds("0.2"), Ok(Duration::from_millis(200)));
        for bad in ["0.1", "-1", "NaN", "inf", "3601", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
