//! snowstorm, set up as its README says, with the pattern that noise-pool uses.

use std::io;
use std::sync::Arc;

use snowstorm::{Builder, Keypair, NoiseParams, NoiseStream};
use tokio::net::TcpStream;

use super::stream::{Flush, Messages};
use super::{Peer, other};

const PATTERN: &str = "Noise_XK_25519_ChaChaPoly_BLAKE2s";

#[derive(Clone)]
pub struct Snowstorm {
    params: NoiseParams,
    initiator: Arc<Keypair>,
    responder: Arc<Keypair>,
}

impl Snowstorm {
    pub fn new() -> Self {
        let params: NoiseParams = PATTERN.parse().expect("a name of the specification");
        let key =
            || Builder::new(params.clone()).generate_keypair().expect("the system's randomness");
        Self { initiator: Arc::new(key()), responder: Arc::new(key()), params }
    }
}

impl Peer for Snowstorm {
    type End = Messages<NoiseStream<TcpStream>>;

    async fn initiate(&self, stream: TcpStream) -> io::Result<Self::End> {
        let state = Builder::new(self.params.clone())
            .local_private_key(&self.initiator.private)
            .remote_public_key(&self.responder.public)
            .build_initiator()
            .map_err(other)?;
        let stream = NoiseStream::handshake(stream, state).await.map_err(other)?;
        // Its write is whole when it returns; it has nothing to flush.
        Ok(Messages::new(stream, Flush::Last))
    }

    async fn respond(&self, stream: TcpStream) -> io::Result<Self::End> {
        let state = Builder::new(self.params.clone())
            .local_private_key(&self.responder.private)
            .build_responder()
            .map_err(other)?;
        let stream = NoiseStream::handshake(stream, state).await.map_err(other)?;
        Ok(Messages::new(stream, Flush::Last))
    }
}
