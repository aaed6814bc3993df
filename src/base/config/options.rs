//! The options of a pool: one line each, with name, type, default, range and reason.
//!
//! Owns [`Config`], which users fill in, and its private validated form `Settings`, which is all that
//! the rest of the crate sees; both come from one table. Nothing here may read a clock, a file or the
//! environment.

use std::fmt;
#[cfg(feature = "serde")]
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "serde")]
use serde::{de::MapAccess, ser::SerializeStruct};

use super::check::Ranged;
use super::choice::{Loopback, WhenFull};
use super::error::ConfigError;
#[cfg(feature = "serde")]
use super::field::{Reading, Writing};
use crate::base::environment::{Entropy, OsEntropy, SystemWallClock, WallClock};
use crate::base::suite::Suite;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// No timer runs longer: far below what instants and tokio's timer wheel can hold.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
/// No table has more entries: a slip of the finger must not ask for the whole memory.
const MANY: usize = 10_000_000;

/// No queue is longer, in bytes: what a semaphore can count.
const MAX_QUEUED: usize = tokio::sync::Semaphore::MAX_PERMITS;

/// What each queued or undelivered message costs besides its own bytes, in bytes: its handle, its
/// deadline and its place in the queue. Without it, empty messages would be free and unbounded.
pub(crate) const MESSAGE_OVERHEAD: usize = 64;

/// What a message of `len` bytes costs, bookkeeping included.
pub(crate) const fn message_cost(len: usize) -> usize {
    len + MESSAGE_OVERHEAD
}

/// From one table: `Config` with its defaults and setters, `Settings`, the ranges, the fields by name.
///
/// A line is `name: type = default, in min..=max;`. The default of a `derived` field depends on other
/// fields: it is optional in `Config` and settled in `Settings`.
macro_rules! options {
    (
        $( $(#[doc = $doc:literal])+ $name:ident: $ty:ty = $default:expr $(, in $range:expr)?; )+
        derived { $( $(#[doc = $sdoc:literal])+ $sname:ident: Option<$sty:ty>; )+ }
    ) => {
        /// How a pool behaves. Every field has a default that suits a router of a few thousand peers.
        ///
        /// Fill it in by chained setters, or (feature `serde`) read it from a file: durations are
        /// written as `"90s"`, optional values may be `"none"`, and a field that is unknown or badly
        /// formed is named in the error. Values are checked when the pool is built.
        ///
        /// ```
        /// use std::time::Duration;
        /// use noise_pool::Config;
        ///
        /// let config = Config::default()
        ///     .max_sessions(500)
        ///     .max_idle(Some(Duration::from_secs(90)));
        /// # let _ = config;
        /// ```
        ///
        /// From TOML and back:
        ///
        /// ```
        /// # #[cfg(feature = "serde")] {
        /// use noise_pool::Config;
        ///
        /// let config: Config = toml::from_str(
        ///     r#"
        ///     network_id = "my overlay"
        ///     max_sessions = 500
        ///     max_idle = "90s"
        ///     max_age = "none"
        ///     "#,
        /// )?;
        /// let written = toml::to_string(&config)?;
        /// assert!(written.contains("max_idle = \"1m 30s\""));
        /// let read_back: Config = toml::from_str(&written)?;
        /// assert_eq!(toml::to_string(&read_back)?, written);
        /// # }
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[derive(Clone)]
        #[must_use = "setters return the configuration"]
        pub struct Config {
            $( pub(super) $name: $ty, )+
            $( pub(super) $sname: Option<$sty>, )+
            wall_clock: Arc<dyn WallClock>,
            entropy: Arc<dyn Entropy>,
            hasher_seed: Option<u64>,
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $( $name: $default, )+
                    $( $sname: None, )+
                    wall_clock: Arc::new(SystemWallClock),
                    entropy: Arc::new(OsEntropy),
                    hasher_seed: None,
                }
            }
        }

        impl Config {
            $(
                $(#[doc = $doc])+
                pub fn $name(mut self, $name: $ty) -> Self {
                    self.$name = $name;
                    self
                }
            )+
            $(
                $(#[doc = $sdoc])+
                pub fn $sname(mut self, $sname: $sty) -> Self {
                    self.$sname = Some($sname);
                    self
                }
            )+

            pub(super) fn check_ranges(&self) -> Result<(), ConfigError> {
                $( $( self.$name.check(stringify!($name), $range)?; )? )+
                Ok(())
            }
        }

        impl fmt::Debug for Config {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct("Config")
                    $( .field(stringify!($name), &Shown(&self.$name)) )+
                    $( .field(stringify!($sname), &self.$sname) )+
                    .finish_non_exhaustive()
            }
        }

        /// A validated [`Config`]; the fields are described there.
        #[derive(Clone)]
        pub(crate) struct Settings {
            $( pub(crate) $name: $ty, )+
            $( pub(crate) $sname: $sty, )+
            pub(crate) wall_clock: Arc<dyn WallClock>,
            pub(crate) entropy: Arc<dyn Entropy>,
            pub(crate) hasher_seed: Option<u64>,
        }

        impl Settings {
            pub(super) fn new(config: Config, $( $sname: $sty, )+) -> Self {
                Self {
                    $( $name: config.$name, )+
                    $( $sname, )+
                    wall_clock: config.wall_clock,
                    entropy: config.entropy,
                    hasher_seed: config.hasher_seed,
                }
            }
        }

        #[cfg(feature = "serde")]
        impl Config {
            pub(super) const FIELDS: &[&str] =
                &[$( stringify!($name), )+ $( stringify!($sname), )+];

            /// Writes every field in its text form.
            pub(super) fn write_fields<S: SerializeStruct>(&self, out: &mut S) -> Result<(), S::Error> {
                $( out.serialize_field(stringify!($name), &Writing(&self.$name))?; )+
                $(
                    match &self.$sname {
                        Some(value) => out.serialize_field(stringify!($sname), &Writing(value))?,
                        None => out.skip_field(stringify!($sname))?,
                    }
                )+
                Ok(())
            }

            /// Reads the value of the field of this name.
            pub(super) fn read_field<'de, A: MapAccess<'de>>(
                &mut self,
                name: &str,
                map: &mut A,
            ) -> Result<(), A::Error> {
                match name {
                    $( stringify!($name) => {
                        self.$name = map.next_value_seed(Reading(PhantomData))?;
                    } )+
                    $( stringify!($sname) => {
                        self.$sname = Some(map.next_value_seed(Reading(PhantomData))?);
                    } )+
                    _ => return Err(serde::de::Error::unknown_field(name, Self::FIELDS)),
                }
                Ok(())
            }
        }
    };
}

options! {
    // Handshake.

    /// The Noise suite; one for a whole network. Default: ChaCha20-Poly1305 with BLAKE2s, which needs
    /// no special hardware to be fast and free of timing leaks.
    suite: Suite = Suite::default();
    /// Bytes that name the network, at most 255; part of every handshake, so that other networks
    /// cannot connect by accident. Default: empty.
    network_id: Vec<u8> = Vec::new();
    /// What each peer learns of us in the handshake, at most 16 KiB; a router puts its own description
    /// there. Default: empty. It can be replaced while the pool runs.
    application_payload: Bytes = Bytes::new();
    /// How far a peer's clock may be from ours. Default 60 s: clocks kept by NTP are within one second,
    /// and twice this time is how long message 1 must be remembered against replay.
    max_clock_skew: Duration = 60 * SECOND, in SECOND..=HOUR;
    /// Bound on connecting to one address. Default 10 s: two retransmissions of a lost SYN, and some.
    connect_timeout: Duration = 10 * SECOND, in MS..=HOUR;
    /// Bound on a dial's way from the look-up of addresses to the peer's answer; a dial that begins
    /// anew, since the peer named another connection, has it again. Default 20 s: a slow first address
    /// must leave time for a second.
    dial_timeout: Duration = 20 * SECOND, in MS..=HOUR;
    /// Head start of one address over the next. Default 250 ms, as RFC 8305 section 8 recommends.
    dial_stagger: Duration = 250 * MS, in MS..=MINUTE;
    /// Time that a stranger has for a valid message 1. Default 3 s: it is one packet, sent at once.
    message1_timeout: Duration = 3 * SECOND, in MS..=HOUR;
    /// Time that a stranger has for the whole handshake. Default 10 s: two round trips, however slow.
    handshake_timeout: Duration = 10 * SECOND, in MS..=HOUR;
    /// How long a committed dial waits for the peer's verdict. Default 3 s: within it the peer runs its
    /// own checks, and until it has passed we cannot know whether the session exists.
    verdict_timeout: Duration = 3 * SECOND, in MS..=HOUR;
    /// How long a callback of the application may take; later counts as a refusal. Default 5 s.
    hook_timeout: Duration = 5 * SECOND, in MS..=HOUR;

    // Messages and memory.

    /// The longest message, in bytes, that we send or take. Default 1 MiB; at most 16 MiB, because a
    /// message is reassembled in memory.
    max_message_size: usize = MIB, in 1..=16 * MIB;
    /// Bytes that each session may queue outside the pool's budget, so that peers that do not read
    /// cannot block sends to those that do. Default 64 KiB: about sixty tunnel messages.
    min_queue: usize = 64 * KIB, in MESSAGE_OVERHEAD..=64 * MIB;
    /// Bytes that one session may queue in all. Default 4 MiB: a second of traffic at 32 Mbit/s.
    max_queue: usize = 4 * MIB, in MESSAGE_OVERHEAD..=MAX_QUEUED;
    /// Bytes that all queues together may hold beyond each session's `min_queue`. Default 256 MiB.
    max_buffered_bytes: usize = 256 * MIB, in MESSAGE_OVERHEAD..=MAX_QUEUED;
    /// Bytes received on one session that the application has not taken yet; beyond, its socket is not
    /// read. Default 2 MiB: one message of the greatest size, and as much again while it is handled.
    max_undelivered: usize = 2 * MIB, in MESSAGE_OVERHEAD..=MAX_QUEUED;
    /// Bytes that the whole inbox holds. Default 64 MiB: 32 peers may flood without a word to others.
    inbox_bytes: usize = 64 * MIB, in MESSAGE_OVERHEAD..=MAX_QUEUED;
    /// Large buffers kept for reuse. Default 64: more sessions than that are seldom busy at one moment,
    /// and together they take 8 MiB at most.
    max_retained_buffers: usize = 64, in 0..=65_536;

    // Session.

    /// Bytes sent under one key before the next is derived. Default 1 GiB. At most 64 GiB, which keeps
    /// AES-GCM well within the bounds of its proof.
    rekey_after_bytes: u64 = 1 << 30, in 1..=64 << 30;
    /// Silence after which the next checkout probes the session first. Default 30 s: shorter than the
    /// time after which home routers forget a connection.
    ping_after: Duration = 30 * SECOND, in MS..=MONTH;
    /// How long a peer may be silent once a ping has left us. Default 5 s: ten times a slow round trip.
    ping_timeout: Duration = 5 * SECOND, in MS..=HOUR;
    /// Silence after which a session on which nothing was sent is pinged in the background. Default 60 s;
    /// a third of it is the pace of keep-alives while the application does not read.
    keepalive: Duration = 60 * SECOND, in 3 * MS..=MONTH;
    /// A write without progress for so long ends the session. Default 30 s; at least half of
    /// `keepalive`, since a peer whose application is slow shows its life every third of it.
    stall_timeout: Duration = 30 * SECOND, in MS..=MONTH;
    /// Bound on every drain. Default 10 s.
    drain_timeout: Duration = 10 * SECOND, in MS..=HOUR;
    /// How long the leases of a retired session may hold it up. Default 5 min.
    retire_timeout: Duration = 5 * MINUTE, in MS..=MONTH;
    /// How long messages that a session has accepted, and left unsent when it ended, wait for the peer's
    /// next session. They go out on it first, in order. `None` (text: `"none"`): not at all. Default
    /// 10 s: a dial in time, and not much that is stale.
    carry_over: Option<Duration> = Some(10 * SECOND), in MS..=HOUR;
    /// Pings per second that a peer may send; more ends the session. Default 10.
    pings_per_second: u32 = 10, in 1..=100_000;

    // Expiry.

    /// A session ends after so long without data or lease (pings do not count). `None` (text: `"none"`)
    /// keeps idle sessions. Default 5 min.
    max_idle: Option<Duration> = Some(5 * MINUTE), in MS..=MONTH;
    /// A session is replaced at this age, less up to a tenth by chance, so that sessions opened
    /// together do not end together. `None` (text: `"none"`) keeps old sessions. Default 30 min.
    max_age: Option<Duration> = Some(30 * MINUTE), in MS..=MONTH;

    // Limits.

    /// Slots in all: live sessions and dials. Default 4,096: what a large I2P router holds.
    max_sessions: usize = 4_096, in 1..=MANY;
    /// Sessions that drain at one time; the oldest is cut for a newcomer. Default 256.
    max_draining: usize = 256, in 1..=MANY;
    /// Leases of one session at one time. Default `None` (text: `"none"`): without limit, and then a
    /// checkout needs no second counter.
    max_leases: Option<NonZeroU32> = None;
    /// What a caller gets when leases or room are out. Default: wait.
    when_full: WhenFull = WhenFull::Wait;
    /// Dials under way at one time. Default 64: a burst of half-open connections upsets home routers.
    max_concurrent_dials: usize = 64, in 1..=65_536;
    /// Dials that wait for their turn; more fail at once. Default 1,024.
    max_queued_dials: usize = 1_024, in 0..=MANY;
    /// Strangers in the handshake at one time. Beyond, the first of those without a valid message 1, or
    /// of those without message 3 if they are more, is shed for a newcomer. Default 128, at most 2 KiB
    /// each until message 1 has verified.
    max_pending_handshakes: usize = 128, in 1..=65_536;
    /// Connections of failed strangers that are read and discarded. Default 64; more are closed at
    /// once.
    max_discarding: usize = 64, in 0..=65_536;
    /// Handshakes that one source (IPv4 /32, IPv6 /64) may begin in one burst. Default 16: a household
    /// or a small provider's NAT that restarts.
    source_burst: u32 = 16, in 1..=1_000_000;
    /// Handshakes per second that one source may begin in the long run. Default 4: at 0.2 ms each, one
    /// source can take less than a thousandth of a processor.
    source_rate: u32 = 4, in 1..=1_000_000;
    /// Sources that are remembered. Default 4,096; the one that may be forgotten soonest makes room.
    source_table: usize = 4_096, in 1..=MANY;
    /// Whether loopback addresses are limited too. Default: exempt.
    limit_loopback: Loopback = Loopback::Exempt;

    // After a failure.

    /// Longest wait after a first failed dial. Default 1 s; doubled by each further failure.
    initial_backoff: Duration = SECOND, in MS..=HOUR;
    /// Longest wait after any number of failures. Default 5 min.
    max_backoff: Duration = 5 * MINUTE, in MS..=MONTH;
    /// Peers whose failures are remembered. Default 4,096; the wait that ends first makes room.
    backoff_table: usize = 4_096, in 1..=MANY;
    /// Longest time that a peer's refusal is believed, whatever it asks for. Default 10 min.
    max_refusal: Duration = 10 * MINUTE, in MS..=MONTH;

    // Memory of the past.

    /// First messages remembered against replay. Default 65,536: 500 handshakes a second for twice
    /// `max_clock_skew`.
    replay_table: usize = 65_536, in 1..=MANY;
    /// Events kept for a subscriber that is behind. Default 1,024.
    event_capacity: usize = 1_024, in 1..=1_048_576;

    derived {
        /// Of `max_sessions`, how many inbound sessions may take. Default three quarters: strangers
        /// must not be able to take all room for our own dials. Zero: dial only.
        max_inbound: Option<usize>;
    }
}

impl Config {
    /// The wall clock. Default: the system's.
    pub fn wall_clock(mut self, wall_clock: impl WallClock) -> Self {
        self.wall_clock = Arc::new(wall_clock);
        self
    }

    /// The source of randomness. Default: the system's. Only a simulation has a reason to change it.
    pub fn entropy(mut self, entropy: impl Entropy) -> Self {
        self.entropy = Arc::new(entropy);
        self
    }

    /// The seed of the hasher of peers. Default: drawn from the source of randomness. Peers choose
    /// their keys, so a seed that they know lets them pile up collisions: fix it in simulations only.
    pub fn hasher_seed(mut self, seed: u64) -> Self {
        self.hasher_seed = Some(seed);
        self
    }
}

/// A value in `Debug`, cut where bytes would fill the screen.
struct Shown<'a, T>(&'a T);

impl<T: fmt::Debug> fmt::Debug for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_CHARACTERS: usize = 80;
        let text = format!("{:?}", self.0);
        match text.char_indices().nth(MAX_CHARACTERS) {
            Some((end, _)) => write!(f, "{}..", &text[..end]),
            None => f.write_str(&text),
        }
    }
}
