//! Alerts to `ALERT_WEBHOOK_URL`, as JSON signed by Standard Webhooks 1.0.
//!
//! One task on the control thread sends them one after the other. What is not taken (any answer but 2xx, no answer within 10 s) is tried again
//! after 1, 2, 4 … seconds, at most 5 minutes, each spread by half; after 10 tries or an hour it is given up, logged and counted. 410 ends it
//! at once: the receiver wants no more. At most [`QUEUE`] wait; a newer one then displaces nobody and is counted as given up. Redirects are not followed,
//! no proxy is asked, and nothing of an answer is read but its status and `Retry-After`.
//!
//! What an earlier process has left undelivered is sent first, with all its tries before it, unless it is older than [`LATEST`]. So each is delivered at least
//! once, and twice where the process ends between the answer and the record of it.
//!
//! `webhook-id` is the alert's and stays the same over all tries and restarts, so that a receiver can tell a repetition; `webhook-timestamp` is that of the try.
//! Without `ALERT_WEBHOOK_SECRET` nothing is signed.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use sha2::Sha256;
use tokio::time::Instant;

use super::{Alert, Delivery, Outbox, random_u32, rfc3339};
use crate::observe::metrics::AlertMetrics;
use crate::settings::Secret;

/// Alerts that wait for their next try. With those that the task has not taken yet, some 320.
pub const QUEUE: usize = 256;
/// What an earlier process has left is not sent any more when it was raised this long ago.
pub const LATEST: Duration = Duration::from_secs(24 * 3600);

/// Where alerts go, and how patiently.
pub struct WebhookConfig {
    /// `ALERT_WEBHOOK_URL`.
    pub url: Secret,
    /// `ALERT_WEBHOOK_SECRET`: each adds a signature.
    pub keys: Vec<Secret>,
    /// How often and how long it is tried.
    pub patience: Patience,
    /// Milliseconds since the Unix epoch.
    pub clock: fn() -> u64,
}

/// How often and how long a delivery is tried.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one try, from connect to the answer's head.
    pub answer: Duration,
    /// After the first failure; it doubles with each.
    pub first_pause: Duration,
    /// At most.
    pub longest_pause: Duration,
    /// Tries of one alert.
    pub tries: u32,
    /// From the first try on.
    pub life: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(10),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(300),
            tries: 10,
            life: Duration::from_secs(3600),
        }
    }
}

/// The webhook cannot be used at all. Says nothing of the URL, which may carry a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("alerts cannot be sent to ALERT_WEBHOOK_URL: {0}")]
pub struct Unusable(&'static str);

/// Sends what comes out of the outbox.
pub struct Webhook {
    config: WebhookConfig,
    url: Url,
    client: Client,
    metrics: Arc<AlertMetrics>,
    waiting: Vec<Pending>,
}

/// An alert that was not taken yet.
struct Pending {
    alert: Arc<Alert>,
    tries: u32,
    born: Instant,
    due: Instant,
}

/// What became of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    Taken,
    /// Worth another try, not before that long.
    Later(Duration),
    /// The receiver wants no more of it.
    Gone,
}

impl Webhook {
    /// Ready to send.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn new(config: WebhookConfig, metrics: Arc<AlertMetrics>) -> Result<Self, Unusable> {
        let url = std::str::from_utf8(config.url.expose()).ok().and_then(|text| Url::parse(text).ok());
        let url = url.ok_or(Unusable("it is no URL"))?;
        let tls = crate::upstream::tls::client_config(None).map_err(|_| Unusable("TLS cannot be set up"))?;
        let client = Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(1)
            .user_agent(concat!("ringwall/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| Unusable("the HTTP client cannot be set up"))?;
        if config.keys.is_empty() {
            tracing::warn!("ALERT_WEBHOOK_SECRET is not set: alerts go out unsigned");
        }
        Ok(Self { config, url, client, metrics, waiting: Vec::new() })
    }

    /// Sends until nobody can raise an alert any more.
    pub async fn run(mut self, outbox: Outbox) {
        let Outbox { mut alerts, left, settled } = outbox;
        self.resume(left);
        settled.notify_one();
        let mut open = true;
        while open || !self.waiting.is_empty() {
            self.metrics.set_waiting(self.waiting.len() as u64);
            let due = self.waiting.iter().map(|pending| pending.due).min();
            tokio::select! {
                biased;
                alert = alerts.recv(), if open => match alert {
                    Some(alert) if self.waiting.len() >= QUEUE => self.give_up(&alert, "too many are waiting"),
                    Some(alert) => self.enter(alert),
                    None => open = false,
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.send_due().await,
            }
            settled.notify_one();
        }
        self.metrics.set_waiting(0);
    }

    /// Takes up what an earlier process has left. Its number is bounded by what that one could have waiting.
    fn resume(&mut self, left: Vec<Arc<Alert>>) {
        let now_ms = (self.config.clock)();
        for alert in left {
            if now_ms.saturating_sub(alert.at_ms) > LATEST.as_secs() * 1000 {
                self.give_up(&alert, "nothing ran that could have sent it while it was of use");
            } else {
                self.enter(alert);
            }
        }
    }

    fn enter(&mut self, alert: Arc<Alert>) {
        let now = Instant::now();
        self.waiting.push(Pending { alert, tries: 0, born: now, due: now });
    }

    /// Tries the one that has been due for longest.
    async fn send_due(&mut self) {
        let first = self.waiting.iter().enumerate().min_by_key(|(_, pending)| pending.due).map(|(at, _)| at);
        let Some(at) = first else { return };
        let mut pending = self.waiting.swap_remove(at);
        pending.tries += 1;
        let tried = self.attempt(&pending.alert).await;
        let pause = match tried {
            Tried::Taken => {
                self.metrics.delivered.inc();
                return pending.alert.settle(Delivery::Delivered);
            }
            Tried::Gone => return self.give_up(&pending.alert, "the receiver wants no more (410)"),
            Tried::Later(at_least) => self.config.patience.pause(pending.tries).max(at_least),
        };
        self.metrics.failed_tries.inc();
        let Patience { tries, life, .. } = self.config.patience;
        if pending.tries >= tries || pending.born.elapsed() + pause > life {
            return self.give_up(&pending.alert, "it was tried often enough");
        }
        pending.due = Instant::now() + pause;
        self.waiting.push(pending);
    }

    /// A dead letter: it stays in the audit trail and in the admin API, and nowhere else.
    fn give_up(&self, alert: &Alert, why: &str) {
        self.metrics.undelivered.inc();
        alert.settle(Delivery::GivenUp);
        tracing::error!(id = alert.id, kind = alert.new.kind.name(), why, "an alert was not delivered to the webhook");
    }

    async fn attempt(&self, alert: &Alert) -> Tried {
        let body = body(alert);
        let Some(headers) = headers(&self.config.keys, &alert.id, (self.config.clock)() / 1000, &body) else {
            return Tried::Gone;
        };
        let request = self.client.post(self.url.clone()).headers(headers).body(body);
        match tokio::time::timeout(self.config.patience.answer, request.send()).await {
            Ok(Ok(answer)) if answer.status().is_success() => Tried::Taken,
            Ok(Ok(answer)) if answer.status() == StatusCode::GONE => Tried::Gone,
            Ok(Ok(answer)) => {
                tracing::debug!(id = alert.id, status = answer.status().as_u16(), "the alert webhook refuses");
                Tried::Later(asked_pause(answer.headers()).min(self.config.patience.longest_pause))
            }
            // The error would name the URL.
            Ok(Err(_)) | Err(_) => Tried::Later(Duration::ZERO),
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            tracing::warn!(
                alerts = self.waiting.len(),
                "alerts that were not delivered yet are sent after the next start"
            );
        }
    }
}

impl Patience {
    /// After this many failures: doubled for each but the first, then spread over its upper half.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let half = doubled.min(self.longest_pause) / 2;
        half + half.mul_f64(f64::from(random_u32()) / f64::from(u32::MAX))
    }
}

/// `Retry-After` in seconds; dates are not read.
fn asked_pause(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
    Duration::from_secs(seconds.unwrap_or(0).into())
}

/// The payload: `type`, `timestamp` and `data`, as Standard Webhooks has it.
fn body(alert: &Alert) -> String {
    let payload = serde_json::json!({
        "type": "ringwall.alert",
        "timestamp": rfc3339(alert.at_ms),
        "data": alert.json(),
    });
    payload.to_string()
}

/// The header fields of one try; `None` if an id could not stand in one, which ids of ours can.
fn headers(keys: &[Secret], id: &str, timestamp_s: u64, body: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("webhook-id", HeaderValue::from_str(id).ok()?);
    headers.insert("webhook-timestamp", HeaderValue::from(timestamp_s));
    let signatures: Vec<_> = keys.iter().filter_map(|key| signature(key.expose(), id, timestamp_s, body)).collect();
    if !signatures.is_empty() {
        headers.insert("webhook-signature", HeaderValue::from_str(&signatures.join(" ")).ok()?);
    }
    Some(headers)
}

/// `v1,` and base64 of HMAC-SHA-256 over `ID.TIMESTAMP.BODY` (Standard Webhooks 1.0, "Signature scheme").
fn signature(key: &[u8], id: &str, timestamp_s: u64, body: &str) -> Option<String> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(format!("{id}.{timestamp_s}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
