//! TLS 1.3 by tokio-rustls, both sides with Ed25519 certificates that the other verifies.

use std::io;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::Peer;
use super::stream::{Flush, Messages};

/// Whose primitives.
#[derive(Clone, Copy, Debug)]
pub enum Library {
    Ring,
    AwsLc,
}

#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    flush: Flush,
}

/// Everybody's name: peers are told apart by their keys.
const NAME: &str = "router.example";

impl Tls {
    /// With this one cipher suite.
    pub fn new(library: Library, suite: CipherSuite, flush: Flush) -> Self {
        let provider = match library {
            Library::Ring => ring::default_provider(),
            Library::AwsLc => aws_lc_rs::default_provider(),
        };
        let provider = Arc::new(only(provider, suite));
        let (client, server) = (Certified::new(), Certified::new());
        let mut connecting = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the suite is of TLS 1.3")
            .with_root_certificates(server.as_root())
            .with_client_auth_cert(vec![client.certificate.clone()], client.key())
            .expect("the key belongs to the certificate");
        // A first connection to a peer has nothing to resume, and needs no tickets for a second.
        connecting.resumption = Resumption::disabled();
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(client.as_root()),
            provider.clone(),
        )
        .build()
        .expect("there is a root");
        let mut accepting = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the suite is of TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.certificate.clone()], server.key())
            .expect("the key belongs to the certificate");
        accepting.send_tls13_tickets = 0;
        Self { connector: Arc::new(connecting).into(), acceptor: Arc::new(accepting).into(), flush }
    }
}

fn only(mut provider: CryptoProvider, suite: CipherSuite) -> CryptoProvider {
    provider.cipher_suites.retain(|supported| supported.suite() == suite);
    provider
}

/// A key and its certificate, signed by itself.
struct Certified {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Certified {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("the system's randomness");
        let params = CertificateParams::new(vec![NAME.to_owned()]).expect("a good name");
        let certificate = params.self_signed(&key).expect("the key signs");
        Self { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    fn as_root(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate of our own making");
        roots
    }
}

impl Peer for Tls {
    type End = Messages<TlsStream<TcpStream>>;

    async fn initiate(&self, stream: TcpStream) -> io::Result<Self::End> {
        let name = ServerName::try_from(NAME).expect("a good name");
        let stream = self.connector.connect(name, stream).await?;
        Ok(Messages::new(stream.into(), self.flush))
    }

    async fn respond(&self, stream: TcpStream) -> io::Result<Self::End> {
        let stream = self.acceptor.accept(stream).await?;
        Ok(Messages::new(stream.into(), self.flush))
    }
}
