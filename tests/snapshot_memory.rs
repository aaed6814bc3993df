//! What a hostile snapshot can make its reader allocate. Alone in its file: it measures the heap.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use noise_pool::snapshot::Snapshot;

#[global_allocator]
static HEAP: dhat::Alloc = dhat::Alloc;

/// Room that is given to a sequence on its word, before its elements are there.
const ON_ITS_WORD: usize = 1 << 20;
/// Bytes in memory per byte of input: an address of 11 bytes takes 56, and vectors grow by doubling.
const PER_BYTE: usize = 16;

/// The most that decoding allocated at one moment beyond what was there before.
fn peak(input: &[u8]) -> usize {
    let _profiler = dhat::Profiler::builder().testing().build();
    let _outcome = Snapshot::decode(input);
    dhat::HeapStats::get().max_bytes
}

/// A file with a proper header.
fn file(payload: &[u8]) -> Vec<u8> {
    let mut file = b"\x89NPSNAP\n\x02\x00".to_vec();
    file.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    file.extend_from_slice(payload);
    file
}

#[test]
fn no_claim_of_a_file_is_believed() {
    let stored = include_bytes!("data/snapshot-v2.bin");
    let bound = |length: usize| ON_ITS_WORD + PER_BYTE * length + 4096;

    // Every place of a good file in turn claims to be a huge length.
    let payload = &stored[18..];
    for claim in [u64::MAX, 1 << 62, 1 << 32, 64 << 20, 1 << 20] {
        for place in (0..payload.len() - 8).step_by(4) {
            let mut hostile = payload.to_vec();
            hostile[place..place + 8].copy_from_slice(&claim.to_le_bytes());
            let hostile = file(&hostile);
            assert!(peak(&hostile) <= bound(hostile.len()), "{claim} at {place}");
        }
    }

    // As many small things as fit: one dial with a great many addresses, and then nothing.
    let mut bomb = payload[..68].to_vec();
    bomb.extend_from_slice(&0_u64.to_le_bytes());
    bomb.extend_from_slice(&1_u64.to_le_bytes());
    bomb.extend_from_slice(&payload[8..68]);
    bomb.extend_from_slice(&1_u64.to_le_bytes());
    bomb.extend_from_slice(&0_u32.to_le_bytes());
    bomb.extend_from_slice(&0_u64.to_le_bytes());
    let addresses = 100_000_u64;
    bomb.extend_from_slice(&addresses.to_le_bytes());
    for _ in 0..addresses {
        bomb.extend_from_slice(&3_u64.to_le_bytes());
        bomb.extend_from_slice(b"a:1");
    }
    let bomb = file(&bomb);
    let peak_of_bomb = peak(&bomb);
    assert!(peak_of_bomb > bomb.len(), "the addresses were read: {peak_of_bomb}");
    assert!(peak_of_bomb <= bound(bomb.len()), "{peak_of_bomb} for {}", bomb.len());

    // Longer than any snapshot: refused before anything is allocated.
    let mut long = stored.to_vec();
    long.resize((64 << 20) + 1, 0);
    assert!(peak(&long) < 1024);

    // A good one: an operator's file must not cost many times its size.
    let mut snapshot = Snapshot::decode(stored).unwrap();
    let session = snapshot.sessions[0].clone();
    snapshot.sessions = vec![session; 20_000];
    let good = snapshot.encode().unwrap();
    assert!(good.len() / 20_000 < 260, "{} bytes per session", good.len() / 20_000);
    let peak_of_good = peak(&good);
    assert!(peak_of_good <= 3 * good.len(), "{peak_of_good} for {}", good.len());
}
