//! Holds the worked example of `docs/wire.md` against the code: the page was made with another
//! implementation, so that agreement means something.
//!
//! Owns nothing but the reading of the page. It must never compute a value that the page gives.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::base::environment::Entropy;
use crate::base::error::GoodbyeReason;
use crate::base::id::PeerId;
use crate::base::key::StaticKey;
use crate::base::suite::Suite;
use crate::proto::HandshakeRole;
use crate::proto::native::connection::{ConnectionParams, NativeConnection};
use crate::proto::native::crypto::TAG;
use crate::proto::native::frame::{self, Split};
use crate::proto::native::handshake::{
    Finished, HandshakeParams, Initiator, Message2, Message3, Responder,
};
use crate::proto::native::record::Verdict;
use crate::proto::wire::connection::{Connection as _, Event};

const MAX_MESSAGE: u32 = 1 << 20;

/// The labelled values of the page: `label =`, then indented lines of hexadecimal digits.
struct Page(BTreeMap<String, Vec<u8>>);

impl Page {
    fn read() -> Self {
        let mut digits: BTreeMap<String, String> = BTreeMap::new();
        let mut label = None;
        for line in include_str!("../../docs/wire.md").lines() {
            match (line.strip_suffix(" ="), line.strip_prefix("    "), &label) {
                (Some(name), _, _) => {
                    let before = digits.insert(name.to_owned(), String::new());
                    assert_eq!(before, None, "{name} stands twice on the page");
                    label = Some(name.to_owned());
                }
                (None, Some(more), Some(name)) => {
                    digits.entry(name.clone()).or_default().push_str(more)
                }
                _ => label = None,
            }
        }
        let decode = |text: String| HEXLOWER.decode(text.as_bytes()).unwrap();
        Self(digits.into_iter().map(|(name, text)| (name, decode(text))).collect())
    }

    fn bytes(&self, label: &str) -> &[u8] {
        self.0.get(label).unwrap_or_else(|| panic!("the page has no {label}"))
    }

    fn key(&self, label: &str) -> [u8; 32] {
        self.bytes(label).try_into().unwrap()
    }

    /// What travels, without the two bytes of its length, which must be right.
    fn body(&self, label: &str) -> &[u8] {
        let (length, body) = self.bytes(label).split_first_chunk().unwrap();
        assert_eq!(usize::from(u16::from_be_bytes(*length)), body.len(), "{label}");
        body
    }
}

/// Gives the same 32 bytes for each key that is drawn.
struct Fixed([u8; 32]);

impl Entropy for Fixed {
    fn fill(&self, dest: &mut [u8]) {
        dest.copy_from_slice(&self.0[..dest.len()]);
    }
}

fn terms(page: &Page, who: &str) -> HandshakeParams {
    let ephemeral = page.key(&format!("{who} ephemeral secret"));
    let secret = page.key(&format!("{who} static secret"));
    let key = StaticKey::new(secret);
    assert_eq!(key.public(), page.bytes(&format!("{who} static public")));
    HandshakeParams::new(
        Suite::ChaChaPolyBlake2s,
        page.bytes("network id"),
        Arc::new(key),
        Arc::new(Fixed(ephemeral)),
    )
}

/// Runs the handshake of the page, and checks each byte of it.
fn shake_hands(page: &Page) -> (Finished, Finished) {
    let (ours, theirs) = (terms(page, "initiator"), terms(page, "responder"));
    let responder = PeerId::from_bytes(page.key("responder static public"));
    let hello2 =
        Message2 { instance: 0x2222_2222_2222_2222, time: 1_700_000_001, max_message: MAX_MESSAGE };
    let hello3 = Message3 {
        instance: 0x1111_1111_1111_1111,
        stamp: 0x1001,
        max_message: MAX_MESSAGE,
        application_payload: Bytes::from_static(b"hello"),
    };

    let (initiator, message1) = Initiator::start(&ours, &responder, 1_700_000_000).unwrap();
    assert_eq!(message1, page.body("message 1"));
    let skew = Duration::from_secs(60);
    let accepted =
        Responder::read_message1(&theirs, &message1, 1_700_000_001, skew, |_| true).unwrap();
    let (awaits, message2) = accepted.write_message2(&hello2).unwrap();
    assert_eq!(message2, page.body("message 2"));
    let (answered, heard2) = initiator.read_message2(&message2).unwrap();
    assert_eq!(heard2, hello2);
    let (at_initiator, message3) = answered.write_message3(&hello3, 0).unwrap();
    assert_eq!(message3, page.body("message 3"));
    let (at_responder, peer, heard3) = awaits.read_message3(&message3).unwrap();
    assert_eq!(peer.as_bytes(), page.bytes("initiator static public"));
    assert_eq!(heard3, hello3);
    for side in [&at_initiator, &at_responder] {
        assert_eq!(side.handshake_hash, page.bytes("handshake hash"));
    }
    (at_initiator, at_responder)
}

fn core(finished: Finished, role: HandshakeRole, rekey_after_bytes: u64) -> NativeConnection {
    let params = ConnectionParams {
        role,
        max_message: MAX_MESSAGE as usize,
        peer_max_message: MAX_MESSAGE as usize,
        rekey_after_bytes,
        pings_per_second: 10,
    };
    NativeConnection::new(finished.transport, params)
}

/// Lets `from` say what waits, compares it with the page, and tells what `to` heard.
fn pass(
    page: &Page,
    label: &str,
    from: &mut NativeConnection,
    messages: &[&'static str],
    to: &mut NativeConnection,
) -> Vec<Event> {
    carry(page, label, from, messages, to);
    std::iter::from_fn(|| to.poll_event()).collect()
}

/// As [`pass`], and leaves what it said with `to`.
fn carry(
    page: &Page,
    label: &str,
    from: &mut NativeConnection,
    messages: &[&'static str],
    to: &mut NativeConnection,
) {
    let mut source: VecDeque<Bytes> = messages.iter().copied().map(Bytes::from).collect();
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    from.seal(&mut source, &mut scratch, &mut out, usize::MAX).unwrap();
    assert_eq!(out, page.bytes(label), "{label}");
    let Split::Whole { body, rest: [] } = frame::split(&out).unwrap() else {
        panic!("{label} is one frame");
    };
    to.open(body, Instant::now()).unwrap();
}

#[test]
fn the_worked_example_of_the_wire_page_is_what_we_speak() {
    let page = Page::read();
    let (at_initiator, at_responder) = shake_hands(&page);
    // The first two frames of the initiator are 64 bytes: the third ends with a rekey.
    let mut initiator = core(at_initiator, HandshakeRole::Initiator, 64);
    let mut responder = core(at_responder, HandshakeRole::Responder, 1 << 30);
    let message = |text: &'static str| Event::Message(Bytes::from_static(text.as_bytes()));

    let verdict = Verdict::Accept {
        stamp: 0x2001,
        observed: "192.0.2.1:4000".to_owned(),
        payload: Bytes::from_static(b"welcome"),
    };
    responder.verdict(verdict.clone());
    carry(&page, "responder frame 1", &mut responder, &[], &mut initiator);
    assert_eq!(initiator.poll_verdict(), Some(verdict));
    assert_eq!(initiator.poll_event(), None);

    initiator.ping(7, Instant::now());
    let heard = pass(&page, "initiator frame 1", &mut initiator, &["first"], &mut responder);
    assert_eq!(heard, [message("first")]);
    let heard = pass(&page, "responder frame 2", &mut responder, &[], &mut initiator);
    assert!(matches!(heard[..], [Event::Pong { .. }]));

    let heard = pass(&page, "initiator frame 2", &mut initiator, &["second"], &mut responder);
    assert_eq!(heard, [message("second")]);
    let heard = pass(&page, "initiator frame 3", &mut initiator, &["third"], &mut responder);
    assert_eq!(heard, [message("third")]);
    assert_eq!(initiator.rekeys(), 1);

    initiator.drain();
    initiator.goodbye(GoodbyeReason::Shutdown);
    let heard = pass(&page, "initiator frame 4", &mut initiator, &[], &mut responder);
    assert_eq!(heard, [Event::Drain]);
    responder.drain();
    responder.goodbye(GoodbyeReason::Answer);
    let heard = pass(&page, "responder frame 3", &mut responder, &[], &mut initiator);
    let goodbye = Event::Goodbye { reason: GoodbyeReason::Answer, received: 3 };
    assert_eq!(heard, [Event::Drain, goodbye]);
    let heard = pass(&page, "initiator frame 5", &mut initiator, &[], &mut responder);
    let goodbye = Event::Goodbye { reason: GoodbyeReason::Shutdown, received: 0 };
    assert_eq!(heard, [goodbye]);
    for side in [&initiator, &responder] {
        assert_eq!(side.end_of_stream(0), Ok(()));
    }
}

#[test]
fn the_page_shows_the_prologue_and_the_plaintexts_that_it_encrypts() {
    let page = Page::read();
    let mut prologue = Vec::new();
    for piece in [
        &b"noise-pool/1"[..],
        Suite::ChaChaPolyBlake2s.noise_name().as_bytes(),
        page.bytes("network id"),
    ] {
        prologue.push(u8::try_from(piece.len()).unwrap());
        prologue.extend_from_slice(piece);
    }
    assert_eq!(page.bytes("prologue"), prologue);

    let (mut at_initiator, mut at_responder) = shake_hands(&page);
    for (who, opener) in
        [("initiator", &mut at_responder.transport), ("responder", &mut at_initiator.transport)]
    {
        for number in 1.. {
            let label = format!("{who} frame {number}");
            if !page.0.contains_key(&label) {
                assert!(number > 3, "the page shows at least three frames of the {who}");
                break;
            }
            let ciphertext = page.body(&label);
            let mut plaintext = vec![0; ciphertext.len() - TAG];
            opener.open(ciphertext, &mut plaintext).unwrap();
            assert_eq!(plaintext, page.bytes(&format!("{who} plaintext {number}")));
            if plaintext.ends_with(&[6, 0, 0]) {
                opener.rekey_incoming();
            }
        }
    }
}
