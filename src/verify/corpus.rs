//! Every committed fuzz input passes through its entry function; and where the first ones came from.
//!
//! `cargo test -- --ignored write_fuzz_seeds` writes them again, from real handshakes, sessions, keys,
//! configurations and snapshots. What fuzzing added beside them is kept.

#![expect(clippy::unwrap_used, reason = "a test whose set-up fails ends there")]

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use crate::base::error::GoodbyeReason;
use crate::base::suite::Suite;
use crate::fuzzing;
use crate::fuzzing::Format;
use crate::proto::HandshakeRole;
use crate::proto::native::crypto::TAG;
use crate::proto::native::frame;
use crate::proto::native::frame::Split;
use crate::proto::native::record::Record;
use crate::proto::wire::connection::Connection as _;
use crate::verify::pair;
use crate::verify::pair::Pair;
use crate::{Config, Identity};

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Gives every committed input of a target to its entry function.
fn run(target: &str, entry: impl Fn(&[u8])) {
    if !fuzz().exists() {
        // The published crate comes without it.
        return;
    }
    let mut inputs = 0;
    for file in fs::read_dir(fuzz().join("corpus").join(target)).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        entry(&fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 4, "{inputs} inputs are not a corpus");
}

macro_rules! corpora {
    ($($target:ident),+ $(,)?) => {$(
        #[test]
        fn $target() {
            run(stringify!($target), fuzzing::$target);
        }
    )+};
}

corpora!(
    frame_decode,
    record_decode,
    handshake_responder,
    handshake_initiator,
    transport_receive,
    session_pair,
    slot_model,
    identity_parse,
    snapshot_decode,
);

#[test]
fn config_parse() {
    run("config_parse", |data| {
        fuzzing::config_parse(data, TOML);
        fuzzing::config_parse(data, JSON);
    });
}

#[test]
fn pool_ops() {
    let arrived = Cell::new(0);
    run("pool_ops", |data| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        arrived.set(arrived.get() + runtime.block_on(fuzzing::pool_ops(data)));
    });
    assert!(
        arrived.get() > 0 || !fuzz().exists(),
        "a network on which nothing arrives shows nothing"
    );
}

const TOML: Format =
    Format { read: |text| toml::from_str(text).ok(), write: |config| toml::to_string(config).ok() };
const JSON: Format = Format {
    read: |text| serde_json::from_str(text).ok(),
    write: |config| serde_json::to_string(config).ok(),
};

#[test]
#[ignore = "writes into the source tree"]
fn write_fuzz_seeds() {
    let write = |target: &str, name: &str, data: &[u8]| {
        let directory = fuzz().join("corpus").join(target);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), data).unwrap();
    };

    // A session of each suite: what each end wrote, and the plaintext of its frames.
    for (suite, name) in [(Suite::ChaChaPolyBlake2s, "chachapoly"), (Suite::AesGcmSha256, "aesgcm")]
    {
        for (role, who) in
            [(HandshakeRole::Initiator, "initiator"), (HandshakeRole::Responder, "responder")]
        {
            let (stream, plaintexts) = written(suite, role);
            write("frame_decode", &format!("{name}-{who}"), &stream);
            write("frame_decode", &format!("{name}-{who}-cut"), &stream[..stream.len() / 2]);
            let records = plaintexts.concat();
            write("record_decode", &format!("{name}-{who}"), &records);
            // What one end wrote is what the other receives.
            let mut input = vec![if role == HandshakeRole::Initiator { 0xa1 } else { 0xa0 }];
            for plaintext in &plaintexts {
                input.extend((plaintext.len() as u16).to_be_bytes());
                input.extend(plaintext);
            }
            write("transport_receive", &format!("{name}-{who}"), &input);
        }
    }
    write("frame_decode", "short", &[0, 16, 1]);
    write("record_decode", "reject", b"\x09\0\x06\x01\x04\0\0\x02\x03");
    write("record_decode", "skippable", b"\xfe\0\x01x\x7f\0\0");
    write("transport_receive", "rekey", b"\xa1\0\x03\x06\0\0\0\x05\x01\0\x02hi");
    write(
        "transport_receive",
        "fragments",
        b"\xa1\0\x09\x02\0\x06\0\0\0\x03ab\0\x0a\x02\0\x07\0\0\0\0cde",
    );
    write(
        "transport_receive",
        "too-large",
        b"\x09\0\x09\x02\0\x06\0\0\0\x01ab\0\x08\x02\0\x05\0\0\0\0c",
    );
    write("transport_receive", "stranger", b"\x03\0\x20garbage garbage garbage garbage ");

    // Handshakes: what becomes of each message, its length, its bytes.
    let in_order_3 = b"\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09\0\x10\0\0\0\x04here";
    let in_order_2 = b"\0\0\0\0\0\0\0\0\x07\x65\x53\xf1\0\0\x10\0\0";
    let now = 1_700_000_000_u32;
    let piece = |how: u8, bytes: &[u8]| {
        let mut out = vec![how];
        out.extend((bytes.len() as u16).to_be_bytes());
        out.extend(bytes);
        out
    };
    let responder: [(&str, Vec<u8>); 11] = [
        ("accepted", [vec![0], piece(0, &now.to_be_bytes()), piece(0, in_order_3)].concat()),
        ("aesgcm", [vec![1], piece(0, &now.to_be_bytes()), piece(0, in_order_3)].concat()),
        ("own", [vec![2], piece(0, &now.to_be_bytes()), piece(0, in_order_3)].concat()),
        ("not-canonical", [vec![4], piece(0, &now.to_be_bytes()), piece(0, in_order_3)].concat()),
        ("zero-key", [vec![6], vec![0; 32], piece(2, b""), piece(2, b"")].concat()),
        ("skewed", [vec![0], piece(0, &(now + 61).to_be_bytes())].concat()),
        ("changed-1", [vec![0], piece(2, b"\x20\x01")].concat()),
        ("changed-3", [vec![0], piece(2, b""), piece(2, b"\x08\x80")].concat()),
        ("cut-1", [vec![0], piece(3, &[0, 51])].concat()),
        ("cut-3", [vec![0], piece(2, b""), piece(3, &[0, 86])].concat()),
        (
            "grown",
            [vec![0], piece(2, b""), piece(0, &[&[1], &in_order_3[1..], b"more"].concat())]
                .concat(),
        ),
    ];
    for (name, data) in responder {
        write("handshake_responder", name, &data);
    }
    let hello = [&[1; 16], &[0x0f, 0xff, 2, b'p', 0, 5][..]].concat();
    let initiator: [(&str, Vec<u8>); 8] = [
        ("accepted", [vec![0], piece(0, in_order_2), hello.clone()].concat()),
        ("aesgcm", [vec![1], piece(0, in_order_2), hello.clone()].concat()),
        (
            "too-long",
            [vec![0], piece(0, in_order_2), [&hello[..20], &[0xff, 0xff]].concat()].concat(),
        ),
        ("grown", [vec![0], piece(0, &[&[1], &in_order_2[1..], b"more"].concat()), hello].concat()),
        ("no-message", [vec![0], piece(0, &[0; 17])].concat()),
        ("changed", [vec![0], piece(2, b"\x20\x01")].concat()),
        ("cut", [vec![0], piece(3, &[0, 64])].concat()),
        ("low-order", [vec![2], vec![0; 32]].concat()),
    ];
    for (name, data) in initiator {
        write("handshake_initiator", name, &data);
    }

    // Operations: what, and an amount.
    let session: [(&str, &[u8]); 6] = [
        ("one-message", &[0, 0, 4, 4, 5, 255, 255, 0x86, 255, 255]),
        ("fragments", &[1, 1, 80, 0, 5, 255, 255, 0x86, 64, 0, 5, 255, 255, 0x86, 255, 255]),
        ("both-ways", &[2, 0, 0, 9, 0x80, 0, 9, 5, 255, 255, 0x85, 255, 255, 6, 0, 9, 0x86, 0, 9]),
        ("pings", &[0, 2, 0, 1, 5, 0, 99, 0x86, 0, 99, 0x85, 0, 99, 6, 0, 99, 3, 0, 0]),
        ("drain", &[4, 0, 0, 9, 4, 0, 16, 5, 255, 255, 0x80, 0, 3, 0x86, 255, 255, 0x84, 0, 0]),
        ("rekey", &[0, 0, 0, 9, 5, 255, 255, 0, 0, 9, 5, 255, 255, 0x86, 255, 255, 0x86, 255, 255]),
    ];
    for (name, data) in session {
        write("session_pair", name, data);
    }
    let slot: [(&str, &[u8]); 9] = [
        ("dial", &[0, 0, 0, 1, 0, 3, 0, 8, 0, 5, 1]),
        ("cancelled", &[0, 0, 0, 1, 0, 2, 0, 2, 0, 3, 0]),
        ("aborted", &[0, 0, 0, 6, 0, 5, 1, 3, 0, 5, 0]),
        ("superseded", &[0, 0, 0, 3, 0, 6, 0, 5, 1, 8, 0, 9, 2, 9, 1]),
        ("parked", &[1, 0, 0, 3, 0, 6, 0, 5, 1, 8, 0, 9, 2, 0x86, 0, 5, 1]),
        ("reopened", &[1, 0, 0, 3, 0, 4, 0, 6, 0, 5, 1, 3, 0]),
        (
            "late-supersedes",
            &[0, 0, 0, 3, 0, 6, 0, 5, 1, 9, 0, 0, 0, 3, 1, 8, 0, 9, 2, 8, 1, 13, 3],
        ),
        ("disconnected", &[0, 0, 0, 3, 0, 10, 0, 0, 0, 8, 0, 5, 1, 10, 0]),
        ("conflict", &[0, 6, 0, 5, 1, 6, 0, 6, 2, 6, 0, 9, 3, 9, 1]),
    ];
    for (name, data) in slot {
        write("slot_model", name, data);
    }
    let pool: [(&str, &[u8]); 12] = [
        ("dial-send", &[3, 5, 0, 0xc0, 4, 0, 0x0a, 0, 9, 0xc4, 0, 0, 100, 0x0a, 0, 9, 12, 0xfd]),
        ("crossing", &[3, 5, 0, 0, 4, 0, 0, 1, 0, 0x0a, 0, 12]),
        (
            "crossing-slow",
            &[
                3, 5, 0, 11, 0, 0x30, 0, 0, 11, 0, 0x30, 0, 0, 0, 4, 0, 0x4a, 0, 5, 0, 1, 0, 10, 0,
                13,
            ],
        ),
        ("full", &[0, 5, 1, 0, 4, 0, 0x0a, 0, 9, 0, 8, 40, 0x0a, 0, 12, 0, 6, 0]),
        ("refused", &[3, 5, 0, 11, 0, 1, 0, 0, 0, 4, 0, 0x0a, 0, 5, 0, 4, 0]),
        ("broken", &[3, 5, 0, 11, 0, 5, 0, 60, 0, 4, 0, 0x0a, 0, 5]),
        (
            "stalled-verdict",
            &[3, 5, 0, 11, 0, 14, 0, 70, 0, 4, 0, 0x0a, 0, 5, 7, 4, 0, 0x0a, 0, 15],
        ),
        ("race", &[3, 5, 0, 11, 0, 2, 0, 0, 0, 4, 2, 0x0a, 0, 9]),
        ("exclusive", &[7, 5, 0, 2, 4, 0, 0x0a, 0, 9, 0, 4, 8, 0x0a, 0, 12]),
        ("kept", &[3, 5, 5, 9, 4, 0x0a, 0, 12, 0x17, 1, 0, 0x0a, 0, 14, 0x19, 4]),
        ("strangers", &[3, 5, 0, 14, 0, 0, 0, 0, 0, 3, 1, 2, 3, 14, 0, 0, 0, 0, 0, 0, 0x0a, 0, 14]),
        ("drained", &[3, 5, 0, 0, 4, 0, 0x0a, 0, 9, 4, 0, 1, 0, 0x5f, 0, 0, 1, 0, 0x0a, 0, 13]),
    ];
    for (name, data) in pool {
        write("pool_ops", name, data);
    }

    // Texts and files.
    let directory = tempfile::tempdir().unwrap();
    for secret in [1, 2] {
        let identity = Identity::from_secret([secret; 32]);
        let path = directory.path().join(secret.to_string());
        identity.save(&path).unwrap();
        write("identity_parse", &format!("key-{secret}"), &fs::read(path).unwrap());
        let peer = identity.peer_id();
        write("identity_parse", &format!("peer-{secret}"), peer.to_string().as_bytes());
        write("identity_parse", &format!("at-{secret}"), format!("{peer}@[::1%3]:80").as_bytes());
    }
    write("identity_parse", "host", b"router.example:4567");
    write("identity_parse", "port-0", b"a:0");
    let config = Config::default();
    write("config_parse", "default.toml", toml::to_string(&config).unwrap().as_bytes());
    write("config_parse", "default.json", serde_json::to_string(&config).unwrap().as_bytes());
    for (name, text) in [
        ("network.toml", "network_id = [255, 0]\nsuite = \"aesgcm-sha256\"\nmax_inbound = 3\n"),
        ("times.toml", "max_idle = \"1h 2m 3s 4ms\"\nmax_age = \"none\"\nmax_leases = \"none\"\n"),
        ("limits.toml", "max_sessions = 10\nmax_leases = 2\nwhen_full = \"fail\"\n"),
        ("null.json", "{\"max_idle\":null,\"limit_loopback\":\"limited\",\"max_leases\":7}"),
    ] {
        write("config_parse", name, text.as_bytes());
    }
    let stored = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/snapshot-v2.bin");
    let stored = fs::read(stored).unwrap();
    write("snapshot_decode", "whole", &stored);
    write("snapshot_decode", "inside", &stored[18..]);
    write("snapshot_decode", "cut", &stored[..300]);
    write("snapshot_decode", "inside-cut", &stored[18..400]);
    write("snapshot_decode", "version", b"\x89NPSNAP\n\x03\0\0\0\0\0\0\0\0\0");
}

/// What one end of a session writes from its first frame to its last, and the plaintext of each frame.
fn written(suite: Suite, role: HandshakeRole) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut pair = Pair::new(suite, |_| {});
    let (initiator, responder) = pair::transports(suite);
    let mut other = if role == HandshakeRole::Initiator { responder } else { initiator };
    pair.side(HandshakeRole::Responder).core.verdict(pair::accept());
    let mut stream = Vec::new();
    for turn in 0..5 {
        for from in [HandshakeRole::Responder, HandshakeRole::Initiator] {
            let now = pair.now;
            let side = pair.side(from);
            match turn {
                1 => side.queue.push_back(Bytes::from_static(b"hello")),
                2 => side.core.ping(7, now),
                3 => side.core.drain(),
                4 => side.core.goodbye(GoodbyeReason::Idle),
                _ => {}
            }
            pair.write(from, usize::MAX).unwrap();
            let wire = &mut pair.side(pair::other(from)).wire;
            if from == role {
                stream.extend(wire.iter());
            }
            pair.read(pair::other(from), usize::MAX).unwrap();
        }
    }
    let mut plaintexts = Vec::new();
    let mut rest = &stream[..];
    while let Split::Whole { body, rest: after } = frame::split(rest).unwrap() {
        let mut plaintext = vec![0; body.len() - TAG];
        other.open(body, &mut plaintext).unwrap();
        assert!(Record::decode(&plaintext).is_ok());
        plaintexts.push(plaintext);
        rest = after;
    }
    (stream, plaintexts)
}
