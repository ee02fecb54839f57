//! TLS to upstreams: rustls through its unbuffered API.
//!
//! The unbuffered API leaves the buffers to us, so an idle pooled connection holds none: ciphertext lives in a vector that is freed when it is
//! empty, and plaintext goes straight into the caller's buffer.

use std::io;
use std::sync::Arc;

use monoio::io::AsyncWriteRentExt;
use monoio::net::TcpStream;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, RootCertStore};

use crate::worker::stream::read_tcp;

/// Ciphertext that one connection may hold: the longest TLS record and its header, twice.
const MAX_INCOMING: usize = 2 * (16_384 + 256 + 5);
/// What is read at once.
const READ_AT_ONCE: usize = 16_384 + 256 + 5;
/// Plaintext that goes into one record.
const MAX_PLAINTEXT: usize = 16_384;

/// The client configuration of one upstream: the system's trust anchors, or the given CA file alone.
///
/// # Errors
/// A sentence that names the file, where it cannot be read or holds no certificate, or where the system has no trust anchors.
pub fn client_config(ca_file: Option<&std::path::Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            use rustls::pki_types::pem::PemObject;
            let certificates = rustls::pki_types::CertificateDer::pem_file_iter(path)
                .map_err(|error| format!("cannot read CA file {}: {error}", path.display()))?;
            for certificate in certificates {
                let certificate =
                    certificate.map_err(|error| format!("CA file {} is not valid PEM: {error}", path.display()))?;
                roots
                    .add(certificate)
                    .map_err(|error| format!("CA file {} holds an unusable certificate: {error}", path.display()))?;
            }
            if roots.is_empty() {
                return Err(format!("CA file {} holds no certificate", path.display()));
            }
        }
        None => {
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                // A container image without a certificate bundle: Mozilla's roots, as compiled in.
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A TLS client connection.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    tls: UnbufferedClientConnection,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: u64,
    closed: bool,
}

/// What the state machine needs next.
enum Next {
    /// Ciphertext from the peer.
    Receive,
    /// `outgoing` must reach the peer.
    Send,
    /// Application data may flow.
    Ready,
    /// The peer has closed its side.
    Closed,
}

impl TlsStream {
    /// Handshakes over `tcp` as a client of `name`. The caller's deadline bounds the time.
    ///
    /// # Errors
    /// What the transport or the certificate check said.
    pub(crate) async fn connect(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let tls = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = Self { tcp, tls, incoming: Vec::new(), outgoing: Vec::new(), sent: 0, closed: false };
        let mut none = Vec::new();
        loop {
            match stream.step(&mut none)? {
                Next::Send => stream.flush().await?,
                Next::Receive => stream.receive().await?,
                Next::Ready => return Ok(stream),
                Next::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) async fn read(&mut self, mut buf: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let before = buf.len();
        loop {
            if self.closed {
                return (Ok(0), buf);
            }
            let next = match self.step(&mut buf) {
                Ok(next) => next,
                Err(error) => return (Err(error), buf),
            };
            if buf.len() > before {
                return (Ok(buf.len() - before), buf);
            }
            let result = match next {
                Next::Send => self.flush().await,
                Next::Receive | Next::Ready => self.receive().await,
                Next::Closed => return (Ok(0), buf),
            };
            if let Err(error) = result {
                return (Err(error), buf);
            }
        }
    }

    pub(crate) async fn write_all(&mut self, buf: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        for chunk in buf.chunks(MAX_PLAINTEXT) {
            if let Err(error) = self.encrypt(chunk) {
                return (Err(error), buf);
            }
            if let Err(error) = self.flush().await {
                return (Err(error), buf);
            }
        }
        (Ok(()), buf)
    }

    /// Drives the state machine until it needs I/O or application data may flow; plaintext is appended to `plain`.
    fn step(&mut self, plain: &mut Vec<u8>) -> io::Result<Next> {
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.tls.process_tls_records(&mut self.incoming);
            let next = match state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    None
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let start = self.outgoing.len();
                    let needed = match data.encode(&mut []) {
                        Err(EncodeError::InsufficientSize(size)) => size.required_size,
                        Ok(n) => n,
                        Err(error) => return Err(io::Error::other(error)),
                    };
                    self.outgoing.resize(start + needed, 0);
                    let target = self.outgoing.get_mut(start..).unwrap_or_default();
                    let n = if needed == 0 { 0 } else { data.encode(target).map_err(io::Error::other)? };
                    self.outgoing.truncate(start + n);
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    // `outgoing` is written by the caller before anything else happens on this connection.
                    data.done();
                    Some(Next::Send)
                }
                ConnectionState::BlockedHandshake => Some(Next::Receive),
                ConnectionState::WriteTraffic(_) => Some(Next::Ready),
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.closed = true;
                    Some(Next::Closed)
                }
                _ => return Err(io::Error::other("TLS state that this client does not know")),
            };
            self.discard(discard);
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    fn encrypt(&mut self, plain: &[u8]) -> io::Result<()> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let UnbufferedStatus { discard, state, .. } = self.tls.process_tls_records(&mut self.incoming);
        let ConnectionState::WriteTraffic(mut traffic) = state.map_err(io::Error::other)? else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let start = self.outgoing.len();
        let needed = match traffic.encrypt(plain, &mut []) {
            Err(EncryptError::InsufficientSize(size)) => size.required_size,
            Ok(n) => n,
            Err(error) => return Err(io::Error::other(error)),
        };
        self.outgoing.resize(start + needed, 0);
        let target = self.outgoing.get_mut(start..).unwrap_or_default();
        let n = traffic.encrypt(plain, target).map_err(io::Error::other)?;
        self.outgoing.truncate(start + n);
        self.discard(discard);
        Ok(())
    }

    fn discard(&mut self, n: usize) {
        if n >= self.incoming.len() {
            // Freed, not cleared: an idle connection holds no buffer.
            self.incoming = Vec::new();
        } else if n > 0 {
            self.incoming.drain(..n);
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        if self.incoming.len() >= MAX_INCOMING {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut buf = std::mem::take(&mut self.incoming);
        buf.reserve(READ_AT_ONCE);
        let (result, buf) = read_tcp(&mut self.tcp, buf).await;
        self.incoming = buf;
        match result? {
            // No close_notify before the end of the stream: possibly truncated, so never taken for a clean end.
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let buf = std::mem::take(&mut self.outgoing);
        let (result, mut buf) = self.tcp.write_all(buf).await;
        buf.clear();
        self.outgoing = buf;
        self.sent += result? as u64;
        Ok(())
    }
}
