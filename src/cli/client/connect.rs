//! A connection to a door: name, address, TCP, TLS. Certificates are always verified; what is not encrypted goes to this machine alone,
//! unless the caller says that it may go further.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::failure::Failure;
use super::target::{Door, Target};
use crate::upstream::tls::client_config;

/// TCP, or TLS over it.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// Makes connections to one target.
pub(super) struct Connector {
    pub(super) target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    plaintext: bool,
    limit: Duration,
}

impl Connector {
    /// `ca`: the only authority to trust, in place of the system's. `plaintext`: may go over a network in clear.
    pub(super) fn new(target: Target, ca: Option<&Path>, plaintext: bool, limit: Duration) -> Result<Self, Failure> {
        let tls = if target.tls {
            let mut config = client_config(ca).map_err(Failure::Usage)?;
            if target.door == Door::Tcp {
                // Lines are not HTTP, and have no name in ALPN.
                Arc::make_mut(&mut config).alpn_protocols.clear();
            }
            let name = ServerName::try_from(target.host.clone())
                .map_err(|_| Failure::Usage("the host is no name that a certificate could be for".to_owned()))?;
            Some((TlsConnector::from(config), name))
        } else if ca.is_some() {
            return Err(Failure::Usage(format!("--ca is for encrypted connections; use {}", target.door.encrypted())));
        } else {
            None
        };
        Ok(Self { target, tls, plaintext, limit })
    }

    /// A new connection, all handshakes below the door's own protocol included.
    pub(super) async fn connect(&self) -> Result<Box<dyn Duplex>, Failure> {
        let late = |_| Failure::timeout(format!("connection to {}", self.target), self.limit);
        timeout(self.limit, self.connect_in_time()).await.map_err(late)?
    }

    async fn connect_in_time(&self) -> Result<Box<dyn Duplex>, Failure> {
        let (host, port) = (self.target.host.as_str(), self.target.port);
        let unknown = || Failure::UnknownHost(host.to_owned());
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(|_| unknown())?.collect();
        let elsewhere = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
        if let Some(address) = elsewhere.filter(|_| self.tls.is_none() && !self.plaintext) {
            return Err(Failure::Plaintext(address.to_string()));
        }
        let mut last = unknown();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(tcp) => return self.secure(tcp).await,
                Err(error) => last = Failure::Unreachable(address.to_string(), error),
            }
        }
        Err(last)
    }

    async fn secure(&self, tcp: TcpStream) -> Result<Box<dyn Duplex>, Failure> {
        // Messages are small and wait for answers. An error here would show again at the first write.
        let _ = tcp.set_nodelay(true);
        match &self.tls {
            None => Ok(Box::new(tcp)),
            Some((connector, name)) => match connector.connect(name.clone(), tcp).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(tls_failure(&error)),
            },
        }
    }
}

fn tls_failure(error: &io::Error) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => Failure::Certificate(why.to_string()),
        Some(rustls::Error::InvalidMessage(_)) => Failure::Tls("the other side does not speak TLS".to_owned()),
        _ => Failure::Tls(error.to_string()),
    }
}
