//! What is sent from one end of a link, whoever sends it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Load {
    /// How long the process runs, in seconds.
    #[arg(long)]
    pub(crate) lasts: u64,
    /// Where it listens.
    #[arg(long)]
    pub(crate) listen: Option<SocketAddr>,
    /// How long it sends, in seconds.
    #[arg(long, default_value_t = 0)]
    pub(crate) sends: u64,
    /// Messages a second to each peer; 0: as many as are taken.
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u32,
    /// A message to each peer at this moment, in milliseconds; then at no other.
    #[arg(long)]
    pub(crate) at: Vec<u64>,
    /// When a message has become worthless, in milliseconds.
    #[arg(long)]
    pub(crate) deadline: Option<u64>,
    /// Pings each peer so often, in milliseconds.
    #[arg(long)]
    pub(crate) pings: Option<u64>,
}

/// The moments at which messages are offered.
pub(crate) struct Offers {
    until: Instant,
    rate: u32,
    due: Instant,
    /// Only at these, if there were any.
    at: Option<std::vec::IntoIter<Instant>>,
}

impl Load {
    pub(crate) fn ends(&self, began: Instant) -> Instant {
        began + Duration::from_secs(self.lasts)
    }

    /// Offers from now on, of a process that has begun then.
    pub(crate) fn offers(&self, began: Instant) -> Offers {
        let until = began + Duration::from_secs(self.sends);
        let moment = |at: &u64| began + Duration::from_millis(*at);
        let at = self.at.iter().map(moment).collect::<Vec<_>>();
        let at = (!at.is_empty()).then(|| at.into_iter());
        Offers { until, rate: self.rate, due: Instant::now(), at }
    }

    /// How long a message has worth.
    pub(crate) fn worth(&self) -> Option<Duration> {
        self.deadline.map(Duration::from_millis)
    }

    pub(crate) fn pings_every(&self) -> Option<Duration> {
        self.pings.map(Duration::from_millis)
    }
}

impl Offers {
    /// Whether as many are to be offered as are taken.
    pub(crate) fn is_unbounded(&self) -> bool {
        self.rate == 0
    }

    /// Waits for the next; false when there is none.
    pub(crate) async fn next(&mut self) -> bool {
        if let Some(at) = &mut self.at {
            let Some(moment) = at.next() else { return false };
            sleep_until(moment).await;
            return true;
        }
        if let Some(between) = Duration::from_secs(1).checked_div(self.rate) {
            self.due += between;
            sleep_until(self.due).await;
        }
        Instant::now() < self.until
    }
}
