//! Blocks: type `u8`, length `u16` big-endian, body.
//!
//! Owns that layout, which the native wire's records and NTCP2's blocks share, so that a session can
//! pack messages before their frame is begun and tell them apart after it was opened. It must never
//! know what a type means.

/// Bytes in front of each block's body.
pub(crate) const HEADER: usize = 3;

/// Most bytes of a body: what the length can say.
pub(crate) const MAX_BODY: usize = u16::MAX as usize;

/// Appends the header of a block whose body is `length` bytes.
#[inline]
pub(crate) fn put_header(out: &mut Vec<u8>, kind: u8, length: usize) {
    debug_assert!(length <= MAX_BODY);
    let [high, low] = (length as u16).to_be_bytes();
    out.extend_from_slice(&[kind, high, low]);
}

/// Appends a block.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    put_header(out, kind, body.len());
    out.extend_from_slice(body);
}

/// Bytes of the first block's body, as its header says; 0 without a whole header.
#[inline]
pub(crate) fn body_len(blocks: &[u8]) -> usize {
    match blocks {
        &[_, high, low, ..] => u16::from_be_bytes([high, low]).into(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found_again() {
        for length in [0, 1, 255, 256, MAX_BODY] {
            let mut blocks = vec![9, 9];
            put(&mut blocks, 7, &vec![1; length]);
            assert_eq!((blocks.len(), blocks[2]), (2 + HEADER + length, 7));
            assert_eq!(body_len(&blocks[2..]), length);
        }
        assert_eq!((body_len(&[]), body_len(&[1, 2])), (0, 0));
    }
}
