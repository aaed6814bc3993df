//! The batch limit: frames of 64 KiB, sealed in place, one write each, and nothing else.
//!
//! No handshake, no queue, no task between caller and socket, one buffer for ever: what is left is
//! the cipher, the system call and the copying that batching needs.

use std::io;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::stream::Input;
use super::{Check, Lane, PREFIX, Peer, Receiver, Sender};

const TAG: usize = 16;
/// Most plaintext of a frame.
const MAX: usize = 65_535 - TAG;
/// Each connection lives in one process: a fixed key hides nothing and costs nothing.
const KEY: [u8; 32] = [7; 32];

/// Whose ChaCha20-Poly1305.
pub trait Cipher: Send + Sync + 'static {
    fn new() -> Self;
    fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> [u8; TAG];
    fn open(&self, nonce: [u8; 12], sealed: &mut [u8]);
}

/// ring's.
pub struct Ring(ring::aead::LessSafeKey);

impl Cipher for Ring {
    fn new() -> Self {
        let key = ring::aead::UnboundKey::new(&ring::aead::CHACHA20_POLY1305, &KEY);
        Self(ring::aead::LessSafeKey::new(key.expect("32 bytes are a key")))
    }

    fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> [u8; TAG] {
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), text);
        tag.expect("it fits").as_ref().try_into().expect("a tag has 16 bytes")
    }

    fn open(&self, nonce: [u8; 12], sealed: &mut [u8]) {
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, ring::aead::Aad::empty(), sealed).expect("it verifies");
    }
}

/// aws-lc's, which noise-pool uses.
pub struct AwsLc(aws_lc_rs::aead::LessSafeKey);

impl Cipher for AwsLc {
    fn new() -> Self {
        let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::CHACHA20_POLY1305, &KEY);
        Self(aws_lc_rs::aead::LessSafeKey::new(key.expect("32 bytes are a key")))
    }

    fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> [u8; TAG] {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, aws_lc_rs::aead::Aad::empty(), text);
        tag.expect("it fits").as_ref().try_into().expect("a tag has 16 bytes")
    }

    fn open(&self, nonce: [u8; 12], sealed: &mut [u8]) {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, aws_lc_rs::aead::Aad::empty(), sealed).expect("it verifies");
    }
}

pub struct Limit<C>(std::marker::PhantomData<fn() -> C>);

impl<C> Limit<C> {
    pub fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<C> Clone for Limit<C> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

/// One end.
pub struct End<C> {
    stream: TcpStream,
    cipher: C,
    sent: u64,
    received: u64,
    /// The frame that is being filled, behind room for its length.
    out: Vec<u8>,
    input: Input,
}

impl<C: Cipher> Peer for Limit<C> {
    type End = End<C>;

    async fn initiate(&self, stream: TcpStream) -> io::Result<End<C>> {
        let mut out = Vec::with_capacity(PREFIX + MAX + TAG);
        out.extend_from_slice(&[0; PREFIX]);
        Ok(End { stream, cipher: C::new(), sent: 0, received: 0, out, input: Input::default() })
    }

    async fn respond(&self, stream: TcpStream) -> io::Result<End<C>> {
        self.initiate(stream).await
    }
}

fn nonce(counter: &mut u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    *counter += 1;
    nonce
}

impl<C: Cipher> Sender for End<C> {
    async fn send(&mut self, lane: &Lane, at: u64) -> io::Result<()> {
        let message = lane.prefixed(at);
        if self.out.len() + message.len() > PREFIX + MAX {
            self.finish().await?;
        }
        self.out.extend_from_slice(message);
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        if self.out.len() > PREFIX {
            let tag = self.cipher.seal(nonce(&mut self.sent), &mut self.out[PREFIX..]);
            self.out.extend_from_slice(&tag);
            let length = (self.out.len() - PREFIX) as u16;
            self.out[..PREFIX].copy_from_slice(&length.to_be_bytes());
            self.stream.write_all(&self.out).await?;
            self.out.truncate(PREFIX);
        }
        Ok(())
    }
}

impl<C: Cipher> Receiver for End<C> {
    async fn receive(&mut self, check: &mut Check) -> io::Result<u64> {
        let mut count = 0;
        while count == 0 {
            self.input.read(&mut self.stream).await?;
            while let Some(sealed) = self.input.next() {
                self.cipher.open(nonce(&mut self.received), sealed);
                let mut rest = &sealed[..sealed.len() - TAG];
                while let Some((length, after)) = rest.split_first_chunk::<PREFIX>() {
                    let (body, after) = after.split_at(u16::from_be_bytes(*length).into());
                    check.message(body);
                    (count, rest) = (count + 1, after);
                }
            }
        }
        Ok(count)
    }
}
