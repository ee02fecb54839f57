//! The keys of an outside issuer, fetched and kept fresh.
//!
//! They are fetched at the start, every [`REFRESH_EVERY`], and soon after a token has named a key that is not known, but never within
//! [`PAUSE`] of the last time: who makes names up cannot make us knock at the issuer's door. A set that cannot be fetched or used changes
//! nothing: the last good keys stay.
//!
//! Redirects are not followed: keys come from the URL that the operator has named, or not at all.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::guard::jwt::issuer::{IssuerKeys, JwksFault};

/// How often keys are fetched.
const REFRESH_EVERY: Duration = Duration::from_secs(600);
/// The least time between two fetches.
const PAUSE: Duration = Duration::from_secs(5);
/// The first pause after a failure; each doubles, up to [`REFRESH_EVERY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the whole.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest set that is read, bytes: 64 keys with their certificates.
const MAX_BYTES: usize = 512 * 1024;

/// Where keys come from and go to.
pub struct JwksConfig {
    /// `JWKS_URL`.
    pub(crate) url: String,
    /// TLS to it.
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// Where workers find the keys.
    pub(crate) published: Arc<ArcSwap<IssuerKeys>>,
    /// Rung when a token names a key that is not known.
    pub(crate) wanted: Arc<Notify>,
}

/// Why a set was not taken. No text of the issuer's is in it.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer: {0}")]
    Transport(#[from] reqwest::Error),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("the answer is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the answer {0}")]
    Set(#[from] JwksFault),
}

/// What keeps the keys fresh.
pub(crate) struct Keeper {
    config: JwksConfig,
    client: reqwest::Client,
}

impl Keeper {
    /// # Errors
    /// Where the library takes no such client.
    pub(crate) fn new(config: JwksConfig) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&config.tls))
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("ringwall/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { config, client })
    }

    /// Fetches for ever.
    pub(crate) async fn keep(self) {
        let (mut retry, mut is_failing) = (FIRST_RETRY, false);
        loop {
            let at = Instant::now();
            let next = match self.refresh().await {
                Ok(keys) => {
                    if is_failing {
                        tracing::info!(keys, "the issuer's keys can be fetched again");
                    }
                    (retry, is_failing) = (FIRST_RETRY, false);
                    REFRESH_EVERY
                }
                Err(error) => {
                    if !is_failing {
                        let kept = self.config.published.load().len();
                        tracing::warn!(%error, kept, "the issuer's keys cannot be fetched; those that were fetched before stay");
                    }
                    is_failing = true;
                    let pause = retry;
                    retry = (retry * 2).min(REFRESH_EVERY);
                    pause
                }
            };
            let by_need = async {
                self.config.wanted.notified().await;
                tokio::time::sleep_until(at + PAUSE).await;
            };
            tokio::select! {
                () = tokio::time::sleep_until(at + next) => {}
                () = by_need => {}
            }
        }
    }

    /// Fetches once. The number of keys.
    async fn refresh(&self) -> Result<usize, FetchError> {
        let document = self.fetch().await?;
        let published = self.config.published.load();
        let keys = IssuerKeys::from_jwks(&document, published.generation().wrapping_add(1))?;
        let count = keys.len();
        // The same keys again leave what workers have verified as it is.
        if !keys.same_keys(&published) {
            tracing::info!(keys = count, "the issuer has published keys");
            self.config.published.store(Arc::new(keys));
        }
        Ok(count)
    }

    async fn fetch(&self) -> Result<Vec<u8>, FetchError> {
        let request = self
            .client
            .get(&self.config.url)
            .header(reqwest::header::ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(reqwest::Error::without_url)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            if document.len().saturating_add(chunk.len()) > MAX_BYTES {
                return Err(FetchError::TooLong);
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// An Ed25519 key (RFC 8037, A.2).
    const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    /// A server that gives each request the next answer, and the last one again.
    async fn server(answers: Vec<String>) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut answers = answers.into_iter();
            while let (Some(answer), Ok((mut stream, _))) = (answers.next(), listener.accept().await) {
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") {
                    seen.push(stream.read_u8().await.unwrap());
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    #[test]
    fn only_a_good_set_takes_the_place_of_another() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let set = |keys: &str| answer("200 OK", &format!("{{\"keys\":[{keys}]}}"));
            let two = format!("{KEY},{}", KEY.replace("one", "two"));
            let answers = vec![
                set(KEY),
                set(KEY),
                answer("500 Internal Server Error", "{}"),
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned(),
                answer("200 OK", "<html>"),
                set(""),
                set(&format!("\"{}\"", "x".repeat(MAX_BYTES))),
                // A body that ends before its length.
                format!("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{{\"keys\":[{KEY}]}}"),
                set(&two),
            ];
            let address = server(answers).await;
            let published = Arc::<ArcSwap<IssuerKeys>>::default();
            let tls = crate::upstream::tls::client_config(None).unwrap();
            let (url, kept) = (format!("http://{address}/keys"), Arc::clone(&published));
            let keeper = Keeper::new(JwksConfig { url, tls, published: kept, wanted: Arc::default() }).unwrap();
            assert!(published.load().is_empty());
            assert_eq!(keeper.refresh().await.unwrap(), 1);
            let first = published.load_full();
            assert_eq!((first.len(), first.generation()), (1, 1));
            assert_eq!(keeper.refresh().await.unwrap(), 1);
            assert!(Arc::ptr_eq(&first, &published.load()), "the same keys change nothing");
            for what in ["a status", "a redirect", "no JSON", "no key", "too long", "cut off"] {
                let error = keeper.refresh().await.unwrap_err();
                assert!(!error.to_string().contains("127.0.0.1"), "{error}");
                assert!(Arc::ptr_eq(&first, &published.load()), "{what}: the last good keys stay");
            }
            assert_eq!(keeper.refresh().await.unwrap(), 2);
            assert_eq!(published.load().generation(), 2);
        });
    }

    /// A server with a certificate of its own, which it says in PEM.
    async fn tls_server(answer: String) -> (SocketAddr, String) {
        use rustls::pki_types::pem::PemObject;
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Who does not trust us goes away.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") {
                    seen.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        (address, certificate)
    }

    #[test]
    fn keys_come_over_tls_from_whom_the_operator_trusts() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (address, certificate) = tls_server(answer("200 OK", &format!("{{\"keys\":[{KEY}]}}"))).await;
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), certificate).unwrap();
            let refresh = async |tls, host: &str| {
                let url = format!("https://{host}:{}/keys", address.port());
                let config = JwksConfig { url, tls, published: Arc::default(), wanted: Arc::default() };
                Keeper::new(config).unwrap().refresh().await.is_ok()
            };
            let trusting = crate::upstream::tls::client_config(Some(file.path())).unwrap();
            assert!(refresh(Arc::clone(&trusting), "localhost").await);
            assert!(!refresh(trusting, "127.0.0.1").await, "another name than the certificate's");
            let usual = crate::upstream::tls::client_config(None).unwrap();
            assert!(!refresh(usual, "localhost").await, "nobody has vouched for it");
        });
    }
}
