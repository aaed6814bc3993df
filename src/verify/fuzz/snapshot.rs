//! Entry function for fuzzing the binary form of snapshots.

use crate::snapshot::Snapshot;

/// Reads `data` as a snapshot; what is taken must come back from its own binary form.
///
/// An input that does not begin as a snapshot does is taken for the part behind the header, so that
/// a fuzzer need not guess the length.
pub fn snapshot_decode(data: &[u8]) {
    const MAGIC: &[u8] = b"\x89NPSNAP\n";
    let with_header;
    let data = if data.starts_with(MAGIC) {
        data
    } else {
        with_header =
            [MAGIC, &1_u16.to_le_bytes(), &(data.len() as u64).to_le_bytes(), data].concat();
        &with_header
    };
    match Snapshot::decode(data) {
        Ok(snapshot) => {
            // Not always in the same bytes: an address has more than one text.
            let written = snapshot.encode().ok();
            let again = written.and_then(|written| Snapshot::decode(&written).ok());
            assert_eq!(again, Some(snapshot));
        }
        // An error must have its words, whatever was found.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
