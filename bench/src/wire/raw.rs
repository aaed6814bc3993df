//! Plain TCP, without any encryption: what no encrypted channel can beat with as many writes.

use std::io;

use tokio::io::BufWriter;
use tokio::net::TcpStream;

use super::Peer;
use super::stream::{Flush, Messages};

/// A write for each message.
#[derive(Clone)]
pub struct Raw;

impl Peer for Raw {
    type End = Messages<TcpStream>;

    async fn initiate(&self, stream: TcpStream) -> io::Result<Self::End> {
        Ok(Messages::new(stream, Flush::Last))
    }

    async fn respond(&self, stream: TcpStream) -> io::Result<Self::End> {
        self.initiate(stream).await
    }
}

/// Messages that come together are written together, 64 KiB at a time.
#[derive(Clone)]
pub struct Coalesced;

impl Peer for Coalesced {
    type End = Messages<BufWriter<TcpStream>>;

    async fn initiate(&self, stream: TcpStream) -> io::Result<Self::End> {
        Ok(Messages::new(BufWriter::with_capacity(64 * 1024, stream), Flush::Last))
    }

    async fn respond(&self, stream: TcpStream) -> io::Result<Self::End> {
        self.initiate(stream).await
    }
}
