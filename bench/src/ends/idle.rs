//! Ends of sessions as the peers of this crate hold them, for the memory that they take.
//!
//! Each is set up as its documentation advises, and then left alone: no task waits on it and nobody
//! has given it a buffer to read into, except where it cannot live without.

use std::future::poll_fn;
use std::mem::swap;
use std::sync::Arc;

use futures::AsyncWriteExt as _;
use libp2p_core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _};
use snow::{Builder, TransportState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use yamux::{Connection, Mode};

const XK: &str = "Noise_XK_25519_ChaChaPoly_BLAKE2s";

/// Sends `message` each way and checks what arrives.
pub async fn talk<E: AsyncRead + AsyncWrite + Unpin>(ends: (&mut E, &mut E), message: &[u8]) {
    let mut received = vec![0; message.len()];
    let (mut from, mut to) = ends;
    for _ in 0..2 {
        let send = async {
            from.write_all(message).await?;
            from.flush().await
        };
        let (sent, read) = tokio::join!(send, to.read_exact(&mut received));
        sent.and(read.map(drop)).expect("loopback is whole");
        assert_eq!(received, message);
        swap(&mut from, &mut to);
    }
}

pub type Snowstorm = snowstorm::NoiseStream<TcpStream>;

pub async fn snowstorm(near: TcpStream, far: TcpStream) -> (Snowstorm, Snowstorm) {
    let builder = || snowstorm::Builder::new(XK.parse().expect("a pattern"));
    let [one, other] =
        [builder(), builder()].map(|builder| builder.generate_keypair().expect("a key"));
    let initiator = builder()
        .local_private_key(&one.private)
        .remote_public_key(&other.public)
        .build_initiator()
        .expect("all keys are there");
    let responder =
        builder().local_private_key(&other.private).build_responder().expect("all keys are there");
    let (near, far) = tokio::join!(
        snowstorm::NoiseStream::handshake(near, initiator),
        snowstorm::NoiseStream::handshake(far, responder)
    );
    (near.expect("it shakes hands"), far.expect("it shakes hands"))
}

type Output = libp2p_noise::Output<Compat<TcpStream>>;
pub type Libp2p = Compat<Output>;

async fn libp2p_outputs(near: TcpStream, far: TcpStream) -> (Output, Output) {
    let config = || {
        let key = libp2p_identity::Keypair::generate_ed25519();
        libp2p_noise::Config::new(&key).expect("a key")
    };
    let (near, far) = tokio::join!(
        config().upgrade_outbound(near.compat(), "/noise"),
        config().upgrade_inbound(far.compat(), "/noise")
    );
    (near.expect("it shakes hands").1, far.expect("it shakes hands").1)
}

pub async fn libp2p(near: TcpStream, far: TcpStream) -> (Libp2p, Libp2p) {
    let (near, far) = libp2p_outputs(near, far).await;
    (near.compat(), far.compat())
}

pub type Yamux = Compat<yamux::Stream>;

/// One open stream on the connection; the connection needs a task that polls it.
pub async fn yamux(near: TcpStream, far: TcpStream) -> (Yamux, Yamux) {
    let (near, far) = libp2p_outputs(near, far).await;
    let mut near = Connection::new(near, yamux::Config::default(), Mode::Client);
    let mut far = Connection::new(far, yamux::Config::default(), Mode::Server);
    let mut stream = poll_fn(|cx| near.poll_new_outbound(cx)).await.expect("a stream is to be had");
    tokio::spawn(async move { while poll_fn(|cx| near.poll_next_inbound(cx)).await.is_some() {} });
    let (opened, arrived) = oneshot::channel();
    tokio::spawn(async move {
        let first = poll_fn(|cx| far.poll_next_inbound(cx)).await;
        let _ = opened.send(first);
        while poll_fn(|cx| far.poll_next_inbound(cx)).await.is_some() {}
    });
    // The other side sees the stream with its first byte.
    stream.write_all(&[1]).await.expect("loopback is whole");
    stream.flush().await.expect("loopback is whole");
    let mut other =
        arrived.await.ok().flatten().expect("it is open").expect("it is whole").compat();
    assert_eq!(other.read_u8().await.expect("loopback is whole"), 1);
    (stream.compat(), other)
}

pub type Tls = TlsStream<TcpStream>;

/// Both sides of TLS, with a key of their own.
pub struct TlsPair(TlsConnector, TlsAcceptor);

impl TlsPair {
    pub fn new() -> Self {
        let own = rcgen::generate_simple_self_signed(["peer".to_owned()]).expect("a name");
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone()).expect("a certificate");
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("it has them")
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .expect("its own key");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("it has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(Arc::new(client).into(), Arc::new(server).into())
    }

    pub async fn connect(&self, near: TcpStream, far: TcpStream) -> (Tls, Tls) {
        let name = ServerName::try_from("peer").expect("a name");
        let (near, far) = tokio::join!(self.0.connect(name, near), self.1.accept(far));
        (near.expect("it shakes hands").into(), far.expect("it shakes hands").into())
    }
}

/// What a program has that glues `snow` to a stream: the state, and a buffer each way.
pub struct Plain {
    stream: TcpStream,
    noise: TransportState,
    out: Vec<u8>,
    read: Vec<u8>,
}

pub async fn plain(near: TcpStream, far: TcpStream) -> (Plain, Plain) {
    let builder = || Builder::new(XK.parse().expect("a pattern"));
    let [one, other] =
        [builder(), builder()].map(|builder| builder.generate_keypair().expect("a key"));
    let initiator = builder()
        .local_private_key(&one.private)
        .and_then(|builder| builder.remote_public_key(&other.public))
        .and_then(Builder::build_initiator);
    let responder = builder().local_private_key(&other.private).and_then(Builder::build_responder);
    let (mut near_noise, mut far_noise) =
        (initiator.expect("all keys are there"), responder.expect("all keys are there"));
    let (mut near, mut far) = (Buffers::new(near), Buffers::new(far));
    for outward in [true, false, true] {
        let (from, from_noise, to, to_noise) = match outward {
            true => (&mut near, &mut near_noise, &mut far, &mut far_noise),
            false => (&mut far, &mut far_noise, &mut near, &mut near_noise),
        };
        let length = from_noise.write_message(&[], &mut from.out[2..]).expect("it is its turn");
        from.send(length).await;
        let length = to.receive().await;
        to_noise.read_message(&to.read[..length], &mut to.out).expect("it is whole");
    }
    (near.with(near_noise), far.with(far_noise))
}

struct Buffers {
    stream: TcpStream,
    out: Vec<u8>,
    read: Vec<u8>,
}

impl Buffers {
    fn new(stream: TcpStream) -> Self {
        Self { stream, out: vec![0; 65_537], read: vec![0; 65_535] }
    }

    async fn send(&mut self, length: usize) {
        self.out[..2].copy_from_slice(&(length as u16).to_be_bytes());
        self.stream.write_all(&self.out[..2 + length]).await.expect("loopback is whole");
    }

    async fn receive(&mut self) -> usize {
        let length = self.stream.read_u16().await.expect("loopback is whole").into();
        self.stream.read_exact(&mut self.read[..length]).await.expect("loopback is whole");
        length
    }

    fn with(self, noise: snow::HandshakeState) -> Plain {
        let noise = noise.into_transport_mode().expect("the handshake is over");
        Plain { stream: self.stream, noise, out: self.out, read: self.read }
    }
}

/// As [`talk`], a frame per message.
pub async fn plain_talk(ends: (&mut Plain, &mut Plain), message: &[u8]) {
    let (mut from, mut to) = ends;
    for _ in 0..2 {
        let length = from.noise.write_message(message, &mut from.out[2..]).expect("it fits");
        from.out[..2].copy_from_slice(&(length as u16).to_be_bytes());
        let send = from.stream.write_all(&from.out[..2 + length]);
        let receive = async {
            let length = usize::from(to.stream.read_u16().await?);
            to.stream.read_exact(&mut to.read[..length]).await
        };
        let (sent, length) = tokio::join!(send, receive);
        let length = sent.and(length).expect("loopback is whole");
        let length = to.noise.read_message(&to.read[..length], &mut to.out).expect("it is whole");
        assert_eq!(&to.out[..length], message);
        swap(&mut from, &mut to);
    }
}
