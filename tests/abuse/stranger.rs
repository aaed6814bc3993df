//! Strangers over TCP: what they send, what they are told, and how they end.
//!
//! One thread with sockets that do not block, and no memory taken once they are under way: whoever
//! measures the pool's processor time or heap has as little of the strangers' in it as can be. It must
//! never connect to anything but the address it was given.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use noise_pool::PeerId;
use noise_pool::snapshot::Stats;
use socket2::{Domain, Socket, Type};

use super::support::raw::Raw;

/// How often each is looked at.
const TICK: Duration = Duration::from_millis(10);

/// Between two bytes of one that dribbles: its message 1 would take twice `message1_timeout`.
const DRIBBLE: Duration = Duration::from_millis(110);

/// Bytes of message 1 with its length.
const MESSAGE_1: usize = 54;

/// Bytes of message 2 with its length: what one gets who knows our key.
const MESSAGE_2: usize = 67;

/// What a stranger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Silent,
    /// A valid message 1, byte by byte, too slowly.
    Dribbling,
    /// Bytes by chance, and more of them than a message 1 has.
    Garbage,
    /// Bytes by chance behind the length of a message 1, as many as it says.
    RightLength,
    /// A message 1 of another network.
    OtherNetwork,
    /// A message 1 that the pool has answered before.
    Replayed,
    /// A valid message 1, and nothing after it. The one that is answered: it knows the pool's key.
    HalfHandshake,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Silent,
        Self::Dribbling,
        Self::Garbage,
        Self::RightLength,
        Self::OtherNetwork,
        Self::Replayed,
        Self::HalfHandshake,
    ];
}

/// What became of the strangers of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fates {
    pub(crate) connected: u64,
    /// Told exactly a message 2.
    pub(crate) answered: u64,
    /// Told anything else.
    pub(crate) told: u64,
    /// Found their stream ended, in order or by a reset.
    pub(crate) ended: u64,
    /// Went away by themselves.
    pub(crate) hung_up: u64,
}

/// What became of all of them, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(pub(crate) [Fates; Kind::ALL.len()]);

impl Tally {
    pub(crate) fn connected(&self) -> u64 {
        self.0.iter().map(|fates| fates.connected).sum()
    }

    /// Notes what a stranger was told that is here no more.
    fn gone(&mut self, stranger: &Stranger) -> &mut Fates {
        let fates = &mut self.0[stranger.kind as usize];
        fates.answered += u64::from(stranger.told == MESSAGE_2);
        fates.told += u64::from(stranger.told != MESSAGE_2 && stranger.told != 0);
        fates
    }

    /// Nobody but who knows the pool's key was told anything, and that one a message 2 at most.
    pub(crate) fn check_silence(&self) {
        for (kind, fates) in Kind::ALL.iter().zip(&self.0) {
            assert_eq!(fates.told, 0, "{kind:?} strangers were told something: {fates:?}");
            let may_be_answered = *kind == Kind::HalfHandshake;
            assert!(may_be_answered || fates.answered == 0, "{kind:?} were answered: {fates:?}");
            assert_eq!(fates.ended + fates.hung_up, fates.connected, "{kind:?}: {fates:?}");
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        for (mine, others) in self.0.iter_mut().zip(other.0) {
            mine.connected += others.connected;
            mine.answered += others.answered;
            mine.told += others.told;
            mine.ended += others.ended;
            mine.hung_up += others.hung_up;
        }
    }
}

/// One line of numbers, for another process.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Fates { connected, answered, told, ended, hung_up } in self.0 {
            write!(f, "{connected} {answered} {told} {ended} {hung_up} ")?;
        }
        Ok(())
    }
}

impl FromStr for Tally {
    type Err = std::num::ParseIntError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let numbers: Vec<u64> =
            line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let mut tally = Self::default();
        for (fates, numbers) in tally.0.iter_mut().zip(numbers.chunks_exact(5)) {
            *fates = Fates {
                connected: numbers[0],
                answered: numbers[1],
                told: numbers[2],
                ended: numbers[3],
                hung_up: numbers[4],
            };
        }
        Ok(tally)
    }
}

/// Until when strangers stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    /// Whoever is left when the last should have come goes too.
    ForTheRound,
    /// Until the pool ends them; it must within this time.
    UntilEnded(Duration),
}

/// A connected stranger.
struct Stranger {
    kind: Kind,
    stream: TcpStream,
    since: Instant,
    dribbled: usize,
    told: usize,
}

/// Where strangers come from: kinds in turn, sources in turn.
pub(crate) struct Crowd {
    peer: PeerId,
    target: SocketAddr,
    /// Addresses to come from; none: the system chooses.
    sources: Vec<Ipv4Addr>,
    /// A message 1 that the pool has answered.
    recorded: Vec<u8>,
    /// Message 1 of each who needs one of its own, the next one last.
    prepared: Vec<Vec<u8>>,
    coming: usize,
    came: usize,
    random: u64,
    here: Vec<Stranger>,
}

impl Crowd {
    /// Strangers to the pool `peer`, which listens at `target`. The first comes at once, and its
    /// message 1 is what others replay.
    pub(crate) fn gather(peer: PeerId, target: SocketAddr, sources: Vec<Ipv4Addr>) -> Self {
        let crowd = Self {
            peer,
            target,
            sources,
            recorded: now_raw().message1(&peer).1,
            prepared: Vec::new(),
            coming: 0,
            came: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            here: Vec::new(),
        };
        let mut first = TcpStream::from(crowd.connect().expect("the first stranger connects"));
        first.write_all(&crowd.recorded).expect("it writes message 1");
        first.read_exact(&mut [0; MESSAGE_2]).expect("it is answered");
        crowd
    }

    /// How many connections [`Crowd::gather`] made.
    pub(crate) const GATHERING: u64 = 1;

    /// Those that were prepared come, evenly over `over`, and go as `stay` says.
    pub(crate) fn visit(&mut self, over: Duration, stay: Stay) -> Tally {
        let count = std::mem::take(&mut self.coming);
        let mut tally = Tally::default();
        let began = Instant::now();
        let last = match stay {
            Stay::ForTheRound => over,
            Stay::UntilEnded(max) => over + max,
        };
        let mut connected = 0;
        loop {
            let passed = began.elapsed();
            let due = (count as f64 * (passed.as_secs_f64() / over.as_secs_f64())).ceil() as usize;
            while connected < due.min(count) {
                self.come(&mut tally);
                connected += 1;
            }
            self.look_after(&mut tally);
            let nobody = connected == count && self.here.is_empty();
            if passed >= last || nobody && stay != Stay::ForTheRound {
                break;
            }
            #[expect(clippy::disallowed_methods, reason = "a thread of their own, in true time")]
            std::thread::sleep(TICK);
        }
        assert!(
            self.here.is_empty() || stay == Stay::ForTheRound,
            "{} strangers were not ended within {last:?}",
            self.here.len(),
        );
        for stranger in self.here.drain(..) {
            tally.gone(&stranger).hung_up += 1;
        }
        tally
    }

    /// Makes all that the next `count` need, so that nothing is computed nor memory taken when they
    /// come.
    pub(crate) fn prepare(&mut self, count: usize) {
        let kinds: Vec<_> = (self.came..self.came + count).map(kind_of).collect();
        for kind in kinds.iter().rev() {
            let raw = match kind {
                Kind::HalfHandshake => now_raw(),
                Kind::OtherNetwork => Raw { network_id: b"other".to_vec(), ..now_raw() },
                _ => continue,
            };
            self.prepared.push(raw.message1(&self.peer).1);
        }
        self.here.reserve(count);
        self.coming += count;
    }

    /// The next stranger connects, and says at once what it says at once.
    fn come(&mut self, tally: &mut Tally) {
        let kind = kind_of(self.came);
        let mut stream = TcpStream::from(self.connect().expect("a stranger connects"));
        stream.set_nonblocking(true).expect("a socket that does not block");
        self.came += 1;
        let mut noise = [0; 3 * MESSAGE_1];
        for bytes in noise.chunks_mut(8) {
            bytes.copy_from_slice(&self.draw()[..bytes.len()]);
        }
        let said = match kind {
            Kind::Silent | Kind::Dribbling => Ok(()),
            Kind::Garbage => stream.write_all(&noise),
            Kind::RightLength => {
                noise[..2].copy_from_slice(&[0, MESSAGE_1 as u8 - 2]);
                stream.write_all(&noise[..MESSAGE_1])
            }
            Kind::Replayed => stream.write_all(&self.recorded),
            Kind::OtherNetwork | Kind::HalfHandshake => {
                stream.write_all(&self.prepared.pop().expect("it was prepared"))
            }
        };
        // It may have been turned away already.
        drop(said);
        tally.0[kind as usize].connected += 1;
        self.here.push(Stranger { kind, stream, since: Instant::now(), dribbled: 0, told: 0 });
    }

    /// Dribbles what is due, and sees who was told something and whose stream has ended.
    fn look_after(&mut self, tally: &mut Tally) {
        let mut at = 0;
        while let Some(stranger) = self.here.get_mut(at) {
            stranger.dribble(&self.recorded);
            if stranger.listen() {
                at += 1;
                continue;
            }
            tally.gone(&self.here.swap_remove(at)).ended += 1;
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if !self.sources.is_empty() {
            let source = self.sources[self.came % self.sources.len()];
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        socket.connect(&self.target.into())?;
        Ok(socket)
    }

    /// Eight bytes by chance, the same in every run (xorshift).
    fn draw(&mut self) -> [u8; 8] {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.to_le_bytes()
    }
}

impl Stranger {
    fn dribble(&mut self, message: &[u8]) {
        if self.kind != Kind::Dribbling || self.since.elapsed() < DRIBBLE * self.dribbled as u32 {
            return;
        }
        if let Some(byte) = message.get(self.dribbled) {
            // Whether its stream has ended is seen by reading.
            let _ = self.stream.write_all(&[*byte]);
            self.dribbled += 1;
        }
    }

    /// Reads what there is; false if the stream has ended.
    fn listen(&mut self) -> bool {
        let mut heard = [0; 128];
        loop {
            match self.stream.read(&mut heard) {
                Ok(0) => return false,
                Ok(n) => self.told += n,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

fn kind_of(n: usize) -> Kind {
    Kind::ALL[n % Kind::ALL.len()]
}

/// A peer whose clock is right.
fn now_raw() -> Raw {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    Raw { time: since.as_secs() as u32, ..Raw::new(200) }
}

/// Connections that a pool has counted, by what became of them: each must be here once.
pub(crate) fn counted(stats: &Stats) -> u64 {
    let (failed, rejected) = (stats.handshake_failures, stats.rejected_by_us);
    stats.handshakes_accepted
        + failed.io
        + failed.unverified
        + failed.malformed
        + failed.skewed
        + failed.replayed
        + failed.bad_key
        + failed.timed_out
        + failed.shed
        + failed.source_limited
        + failed.not_admitted
        + rejected.full
        + rejected.draining
        + rejected.refused
        + rejected.simultaneous
        + rejected.duplicate
        + rejected.other
}
