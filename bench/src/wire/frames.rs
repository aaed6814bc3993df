//! tokio and snow by hand: Noise XK, and a frame and a write for each message.

use std::io;
use std::sync::Arc;

use snow::params::NoiseParams;
use snow::resolvers::BoxedCryptoResolver;
use snow::{Builder, HandshakeState, Keypair, TransportState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::stream::Input;
use super::{Check, Lane, PREFIX, Peer, Receiver, Sender, crypto, other};

/// Most bytes of a Noise message.
const MAX: usize = 65_535;

const PATTERN: &str = "Noise_XK_25519_ChaChaPoly_BLAKE2s";

/// Whose primitives.
#[derive(Clone, Copy, Debug)]
pub enum Crypto {
    /// What snow uses when nobody says otherwise.
    Default,
    /// What noise-pool uses when nobody says otherwise.
    AwsLc,
}

#[derive(Clone)]
pub struct Snow {
    params: NoiseParams,
    crypto: Crypto,
    initiator: Arc<Keypair>,
    responder: Arc<Keypair>,
}

impl Snow {
    pub fn new(crypto: Crypto) -> Self {
        let params: NoiseParams = PATTERN.parse().expect("a name of the specification");
        let key =
            || Builder::new(params.clone()).generate_keypair().expect("the system's randomness");
        Self { initiator: Arc::new(key()), responder: Arc::new(key()), params, crypto }
    }

    fn builder(&self) -> Builder<'_> {
        let resolver: Option<BoxedCryptoResolver> = match self.crypto {
            Crypto::Default => None,
            Crypto::AwsLc => Some(crypto::aws_lc()),
        };
        match resolver {
            None => Builder::new(self.params.clone()),
            Some(resolver) => Builder::with_resolver(self.params.clone(), resolver),
        }
    }

    /// Both sides of a handshake, before their first message.
    pub fn states(&self) -> Result<(HandshakeState, HandshakeState), snow::Error> {
        Ok((self.begin_initiator()?, self.begin_responder()?))
    }

    fn begin_initiator(&self) -> Result<HandshakeState, snow::Error> {
        self.builder()
            .local_private_key(&self.initiator.private)?
            .remote_public_key(&self.responder.public)?
            .build_initiator()
    }

    fn begin_responder(&self) -> Result<HandshakeState, snow::Error> {
        self.builder().local_private_key(&self.responder.private)?.build_responder()
    }
}

/// One end.
pub struct Frames {
    stream: TcpStream,
    state: TransportState,
    /// Both made when they are needed, so that a handshake alone does not pay for them.
    out: Vec<u8>,
    plaintext: Vec<u8>,
    input: Input,
}

impl Peer for Snow {
    type End = Frames;

    async fn initiate(&self, stream: TcpStream) -> io::Result<Frames> {
        shake(stream, self.begin_initiator().map_err(other)?).await
    }

    async fn respond(&self, stream: TcpStream) -> io::Result<Frames> {
        shake(stream, self.begin_responder().map_err(other)?).await
    }
}

async fn shake(mut stream: TcpStream, mut state: HandshakeState) -> io::Result<Frames> {
    // No message of XK without payloads is longer.
    let (mut message, mut payload) = ([0; PREFIX + 256], [0; 256]);
    while !state.is_handshake_finished() {
        if state.is_my_turn() {
            let length = state.write_message(&[], &mut message[PREFIX..]).map_err(other)?;
            message[..PREFIX].copy_from_slice(&(length as u16).to_be_bytes());
            stream.write_all(&message[..PREFIX + length]).await?;
        } else {
            stream.read_exact(&mut message[..PREFIX]).await?;
            let length = usize::from(u16::from_be_bytes([message[0], message[1]])).min(256);
            stream.read_exact(&mut message[..length]).await?;
            state.read_message(&message[..length], &mut payload).map_err(other)?;
        }
    }
    let state = state.into_transport_mode().map_err(other)?;
    Ok(Frames { stream, state, out: Vec::new(), plaintext: Vec::new(), input: Input::default() })
}

impl Sender for Frames {
    async fn send(&mut self, lane: &Lane, at: u64) -> io::Result<()> {
        self.out.resize(PREFIX + MAX, 0);
        let length =
            self.state.write_message(lane.body(at), &mut self.out[PREFIX..]).map_err(other)?;
        self.out[..PREFIX].copy_from_slice(&(length as u16).to_be_bytes());
        self.stream.write_all(&self.out[..PREFIX + length]).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Receiver for Frames {
    async fn receive(&mut self, check: &mut Check) -> io::Result<u64> {
        self.plaintext.resize(MAX, 0);
        let mut count = 0;
        while count == 0 {
            self.input.read(&mut self.stream).await?;
            while let Some(frame) = self.input.next() {
                let length = self.state.read_message(frame, &mut self.plaintext).map_err(other)?;
                check.message(&self.plaintext[..length]);
                count += 1;
            }
        }
        Ok(count)
    }
}
