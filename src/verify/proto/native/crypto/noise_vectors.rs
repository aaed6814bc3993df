//! The published Noise test vectors, through every resolver of this build.

use data_encoding::HEXLOWER;
use serde_json::Value;
use snow::{Builder, HandshakeState};

use super::Transport;
use super::tests::resolvers;
use crate::base::key::KEY;

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn key(value: &Value) -> [u8; KEY] {
    bytes(value).try_into().unwrap()
}

/// Builds both sides over resolver number `which` of each side's list.
fn pair(vector: &Value, initiator: usize, responder: usize) -> [HandshakeState; 2] {
    let name = vector["protocol_name"].as_str().unwrap();
    let secrets = [key(&vector["init_static"]), key(&vector["resp_static"])];
    let ephemerals = [bytes(&vector["init_ephemeral"]), bytes(&vector["resp_ephemeral"])];
    let prologues = [bytes(&vector["init_prologue"]), bytes(&vector["resp_prologue"])];
    let remote = bytes(&vector["init_remote_static"]);
    let build = |side: usize, which: usize| {
        let (_, make) = &resolvers(secrets[side])[which];
        Builder::with_resolver(name.parse().unwrap(), make())
            .local_private_key(&secrets[side])
            .unwrap()
            .fixed_ephemeral_key_for_testing_only(&ephemerals[side])
            .prologue(&prologues[side])
            .unwrap()
    };
    [
        build(0, initiator).remote_public_key(&remote).unwrap().build_initiator().unwrap(),
        build(1, responder).build_responder().unwrap(),
    ]
}

fn run(vector: &Value, mut sides: [HandshakeState; 2]) {
    let name = vector["protocol_name"].as_str().unwrap();
    let messages = vector["messages"].as_array().unwrap();
    let (handshake, transport) = messages.split_at(3);
    let mut buffer = vec![0; 65_535];
    let mut plain = vec![0; 65_535];
    for (i, message) in handshake.iter().enumerate() {
        let (payload, expected) = (bytes(&message["payload"]), bytes(&message["ciphertext"]));
        let n = sides[i % 2].write_message(&payload, &mut buffer).unwrap();
        assert_eq!(buffer[..n], expected, "{name}, message {}", i + 1);
        let n = sides[(i + 1) % 2].read_message(&expected, &mut plain).unwrap();
        assert_eq!(plain[..n], payload, "{name}, message {}", i + 1);
    }
    for side in &sides {
        // snow's own set does not state the hash.
        if let Some(hash) = vector["handshake_hash"].as_str() {
            assert_eq!(HEXLOWER.encode(side.get_handshake_hash()), hash, "{name}");
        }
    }
    assert_eq!(sides[0].get_handshake_hash(), sides[1].get_handshake_hash());
    let mut sides = sides.map(|side| Transport::new(side.into_transport_mode().unwrap()));
    for (i, message) in transport.iter().enumerate() {
        let (payload, expected) = (bytes(&message["payload"]), bytes(&message["ciphertext"]));
        // The handshake has three messages, so that the responder writes first.
        let n = sides[(i + 1) % 2].seal(&payload, &mut buffer).unwrap();
        assert_eq!(buffer[..n], expected, "{name}, message {}", i + 4);
        let n = sides[i % 2].open(&expected, &mut plain).unwrap();
        assert_eq!(plain[..n], payload, "{name}, message {}", i + 4);
    }
}

#[test]
fn all_published_vectors_pass_in_every_combination() {
    let set: Value =
        serde_json::from_str(include_str!("../../../../../tests/data/xk-vectors.json")).unwrap();
    let vectors = set["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 8);
    let implementations = resolvers([1; KEY]).len();
    assert_eq!(implementations, 1 + usize::from(cfg!(feature = "fast-crypto")));
    for vector in vectors {
        for initiator in 0..implementations {
            for responder in 0..implementations {
                run(vector, pair(vector, initiator, responder));
            }
        }
    }
}
