//! The overlay's message: a source-routed header and filler, of one size on every hop.
//!
//! Owns the layout and the checks that a router makes on what it received. Never touches a pool: a
//! step is bytes in, a decision out. All hops see messages of the same size, as I2P's tunnel
//! messages are, so that the size does not tell how far a message has come; the path therefore
//! stays in the header, and a relay only moves the cursor.
//!
//! ```text
//! cursor u8 | hops u8 | source u16 | id u64 | sent u64 (µs) | hops × peer (32) | filler
//! ```
//!
//! Integers are big-endian. Nothing here is secret from a relay; an anonymity network would wrap the
//! path in layers, and that is not what this example is about.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use noise_pool::PeerId;
use thiserror::Error;

/// Bytes before the path.
const FIXED: usize = 1 + 1 + 2 + 8 + 8;
/// Bytes of one entry of the path.
const PEER: usize = 32;
/// Where the cursor is.
const CURSOR: usize = 0;

/// The bytes that a header with this many hops takes: the least message size.
pub(crate) const fn header_len(hops: usize) -> usize {
    FIXED + hops * PEER
}

/// What the source writes into a message, and the destination reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The source's number among the routers: whose window the message takes room in.
    pub(crate) source: u16,
    /// The end-to-end id, unique in the run.
    pub(crate) id: u64,
    /// When the source sent it, since the run began, in whole microseconds.
    pub(crate) sent: Duration,
}

/// What a router has to do with a message that it received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The path ends here.
    Deliver(Stamp),
    /// Send `body` on to `next`.
    Relay {
        /// The next hop.
        next: PeerId,
        /// The message, with the cursor moved.
        body: Bytes,
    },
}

/// Why a router cannot do anything with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PacketError {
    /// Shorter than its own header.
    #[error("message of {0} bytes is shorter than its header")]
    Short(usize),
    /// The cursor points past the path.
    #[error("cursor {cursor} is past a path of {hops} hops")]
    Cursor {
        /// Where it points.
        cursor: u8,
        /// The length of the path.
        hops: u8,
    },
    /// The path names another router at the cursor.
    #[error("the message is not for this router")]
    Misrouted,
    /// The filler has changed on the way.
    #[error("the filler has changed on the way")]
    Damaged,
}

/// A new message of `size` bytes, to be sent to the first hop of `path`; the last one is its
/// destination.
///
/// `size` is at least [`header_len`] of the path, and the path has at most 255 hops: the options are
/// checked for both before anything runs.
pub(crate) fn build(stamp: Stamp, path: &[PeerId], size: usize) -> Bytes {
    let mut body = BytesMut::with_capacity(size);
    body.put_u8(0);
    body.put_u8(path.len() as u8);
    body.put_u16(stamp.source);
    body.put_u64(stamp.id);
    body.put_u64(stamp.sent.as_micros() as u64);
    for peer in path {
        body.put_slice(peer.as_bytes());
    }
    body.resize(size, filler(stamp.id));
    body.freeze()
}

/// Decides what the router `me` does with a message that has just reached it.
pub(crate) fn step(body: Bytes, me: &PeerId) -> Result<Step, PacketError> {
    let short = PacketError::Short(body.len());
    let &[cursor, hops, ..] = &body[..] else {
        return Err(short);
    };
    let path_end = header_len(usize::from(hops));
    if body.len() < path_end {
        return Err(short);
    }
    if cursor >= hops {
        return Err(PacketError::Cursor { cursor, hops });
    }
    if entry(&body, cursor) != me.as_bytes() {
        return Err(PacketError::Misrouted);
    }

    let id = be_u64(&body[4..12]);
    if cursor + 1 == hops {
        // Only the destination looks: a session must hand out exactly the bytes that went in.
        if body[path_end..].iter().any(|byte| *byte != filler(id)) {
            return Err(PacketError::Damaged);
        }
        return Ok(Step::Deliver(Stamp {
            source: u16::from_be_bytes([body[2], body[3]]),
            id,
            sent: Duration::from_micros(be_u64(&body[12..20])),
        }));
    }
    let mut next = [0; PEER];
    next.copy_from_slice(entry(&body, cursor + 1));
    let next = PeerId::from_bytes(next);
    // Received messages are slices of a decrypted frame that others share, so this copies.
    let mut body = BytesMut::from(body);
    body[CURSOR] = cursor + 1;
    Ok(Step::Relay { next, body: body.freeze() })
}

/// One entry of the path; the caller has checked that the header is whole.
fn entry(body: &[u8], index: u8) -> &[u8] {
    let start = header_len(usize::from(index));
    &body[start..start + PEER]
}

/// A byte that differs between neighbouring ids, so that mixed-up messages show.
const fn filler(id: u64) -> u8 {
    (id as u8) ^ 0x5a
}

fn be_u64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use noise_pool::Identity;

    const STAMP: Stamp =
        Stamp { source: 7, id: 0x0102_0304_0506_0708, sent: Duration::from_micros(99) };

    fn path(hops: u8) -> Vec<PeerId> {
        (1..=hops).map(|n| Identity::from_secret([n; 32]).peer_id()).collect()
    }

    #[test]
    fn a_message_visits_its_hops_in_order_and_keeps_its_size() {
        let path = path(3);
        let mut body = build(STAMP, &path, 1028);
        for (at, next) in path.iter().zip(&path[1..]) {
            assert_eq!(body.len(), 1028);
            match step(body, at) {
                Ok(Step::Relay { next: to, body: b }) => {
                    assert_eq!(to, *next);
                    body = b;
                }
                other => panic!("expected a relay step, got {other:?}"),
            }
        }
        assert_eq!(step(body, &path[2]), Ok(Step::Deliver(STAMP)));
    }

    #[test]
    fn the_least_size_has_no_filler() {
        let path = path(1);
        let body = build(STAMP, &path, header_len(1));
        assert_eq!(step(body, &path[0]), Ok(Step::Deliver(STAMP)));
    }

    #[test]
    fn every_cut_of_the_header_is_refused() {
        let path = path(2);
        let body = build(STAMP, &path, header_len(2));
        for len in 0..body.len() {
            assert_eq!(step(body.slice(..len), &path[0]), Err(PacketError::Short(len)));
        }
    }

    #[test]
    fn a_message_for_another_router_is_not_relayed() {
        let path = path(2);
        let body = build(STAMP, &path, 200);
        assert_eq!(step(body, &path[1]), Err(PacketError::Misrouted));
    }

    #[test]
    fn a_cursor_past_the_path_is_refused() {
        let path = path(2);
        let mut body = BytesMut::from(build(STAMP, &path, 200));
        body[CURSOR] = 2;
        assert_eq!(step(body.freeze(), &path[0]), Err(PacketError::Cursor { cursor: 2, hops: 2 }));
    }

    #[test]
    fn a_changed_filler_is_seen_at_the_destination() {
        let path = path(1);
        let mut body = BytesMut::from(build(STAMP, &path, 200));
        body[199] ^= 1;
        assert_eq!(step(body.freeze(), &path[0]), Err(PacketError::Damaged));
    }
}
