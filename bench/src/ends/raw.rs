//! A peer that shakes hands and then is silent, made from the wire's page and `snow`.
//!
//! It costs its stream and nothing else: so a hundred thousand peers of one pool fit into a process,
//! and what they hold is the pool's.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use noise_pool::PeerId;
use snow::Builder;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const SUITE: &str = "Noise_XK_25519_ChaChaPoly_BLAKE2s";
/// The type of the responder's first record, and the first byte of one that accepts.
const VERDICT: u8 = 9;
const ACCEPT: u8 = 0;

/// The key of the `n`th peer: any 32 bytes are one.
pub fn secret(n: u64) -> [u8; 32] {
    let mut secret = [0x5a; 32];
    secret[8..16].copy_from_slice(&n.to_be_bytes());
    secret
}

/// Shakes hands with `responder` as initiator and reads its verdict.
///
/// # Errors
/// Whatever the stream says; and a verdict that is no acceptance.
pub async fn dial(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    secret: &[u8; 32],
    responder: &PeerId,
) -> io::Result<()> {
    let mut prologue = Vec::new();
    for piece in ["noise-pool/1", SUITE, ""] {
        prologue.push(piece.len() as u8);
        prologue.extend_from_slice(piece.as_bytes());
    }
    let mut noise = Builder::new(SUITE.parse().map_err(io::Error::other)?)
        .prologue(&prologue)
        .and_then(|builder| builder.local_private_key(secret))
        .and_then(|builder| builder.remote_public_key(responder.as_bytes()))
        .and_then(Builder::build_initiator)
        .map_err(io::Error::other)?;

    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
    let mut message = [0; 512];
    let time = (seconds as u32).to_be_bytes();
    let length = noise.write_message(&time, &mut message).map_err(io::Error::other)?;
    send(&mut stream, &message[..length]).await?;

    let received = receive(&mut stream).await?;
    noise.read_message(&received, &mut message).map_err(io::Error::other)?;

    let mut hello = Vec::new();
    hello.push(0);
    hello.extend_from_slice(&7_u64.to_be_bytes());
    hello.extend_from_slice(&1_u64.to_be_bytes());
    hello.extend_from_slice(&(1_u32 << 20).to_be_bytes());
    hello.extend_from_slice(&0_u16.to_be_bytes());
    let length = noise.write_message(&hello, &mut message).map_err(io::Error::other)?;
    send(&mut stream, &message[..length]).await?;

    let mut noise = noise.into_transport_mode().map_err(io::Error::other)?;
    let received = receive(&mut stream).await?;
    noise.read_message(&received, &mut message).map_err(io::Error::other)?;
    if message[0] != VERDICT || message[3] != ACCEPT {
        return Err(io::Error::other("no acceptance"));
    }
    Ok(())
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let mut whole = (message.len() as u16).to_be_bytes().to_vec();
    whole.extend_from_slice(message);
    stream.write_all(&whole).await
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
