#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the threads of a test are its own")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;

use sha2::Digest;

use super::*;
use crate::control::alerts::{AlertKind, Alerts, NewAlert, Subject};
use crate::state::events::{Bell, EventQueue};

const NOW_MS: u64 = 1_700_000_000_123;
const KEY: &[u8] = b"a key of thirty-two bytes, more..";
/// Only what hangs takes this long.
const LIMIT: Duration = Duration::from_secs(30);

fn clock() -> u64 {
    NOW_MS
}

/// What the receiver does with a request.
#[derive(Clone, Copy)]
enum Do {
    Answer(&'static str),
    /// Says nothing and keeps the connection.
    Stall,
    /// Closes without a word.
    Hang,
}

const TAKEN: Do = Do::Answer("HTTP/1.1 204 No Content\r\n\r\n");
const BROKEN: Do = Do::Answer("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nOops");

/// A receiver that follows a script, one connection a request, and passes on what it read: fields and body.
struct Receiver {
    address: SocketAddr,
    requests: mpsc::Receiver<(Vec<(String, String)>, String)>,
}

impl Receiver {
    fn start(script: Vec<Do>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel();
        std::thread::spawn(move || {
            let mut stalled = Vec::new();
            for step in script {
                let (stream, _) = listener.accept().unwrap();
                let _ = sender.send(read(&stream));
                match step {
                    Do::Answer(text) => {
                        let text = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
                        (&stream).write_all(text.as_bytes()).unwrap();
                    }
                    Do::Stall => stalled.push(stream),
                    Do::Hang => {}
                }
            }
            // Nobody listens any more.
        });
        Self { address, requests }
    }

    fn next(&self) -> (Vec<(String, String)>, String) {
        self.requests.recv_timeout(LIMIT).expect("a request")
    }
}

fn read(stream: &TcpStream) -> (Vec<(String, String)>, String) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let mut fields: Vec<(String, String)> = vec![("".into(), lines.remove(0))];
    fields
        .extend(lines.iter().map(|line| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned())).unwrap()));
    let length = field(&fields, "content-length").parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (fields, String::from_utf8(body).unwrap())
}

fn field<'f>(fields: &'f [(String, String)], name: &str) -> &'f str {
    let mut found = fields.iter().filter(|(field, _)| field == name);
    let value = found.next().unwrap_or_else(|| panic!("no {name} in {fields:?}"));
    assert!(found.next().is_none(), "{name} twice");
    &value.1
}

fn quick() -> Patience {
    Patience {
        answer: Duration::from_secs(5),
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
        tries: 10,
        life: LIMIT,
    }
}

/// A webhook to `address` and the means to raise alerts. The task ends when the last [`Alerts`] is gone and nothing waits.
struct Rig {
    alerts: Option<Alerts>,
    metrics: Arc<AlertMetrics>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Rig {
    fn start(address: SocketAddr, patience: Patience) -> Self {
        let metrics = Arc::new(AlertMetrics::default());
        let events = Arc::new(EventQueue::with_capacity(1024, Arc::new(Bell::default())));
        let (alerts, exits) = Alerts::new(events, metrics.clone(), clock);
        let config = WebhookConfig {
            url: Secret::new(format!("http://{address}/hooks?key=hidden")),
            keys: vec![Secret::new(KEY), Secret::new(b"another key of more than 24 bytes")],
            patience,
            clock,
        };
        let webhook = Webhook::new(config, metrics.clone()).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(webhook.run(exits.outbox));
        });
        Self { alerts: Some(alerts), metrics, thread: Some(thread) }
    }

    fn raise(&self, agent: &str) {
        let subject = Subject::Agent(agent.to_owned());
        let new = NewAlert { kind: AlertKind::RefreshReuse, subject, details: "twice".to_owned() };
        assert!(self.alerts.as_ref().unwrap().raise(new));
    }

    /// Waits until everything was delivered or given up: delivered, failed tries, given up.
    fn end(mut self) -> (u64, u64, u64) {
        self.alerts = None;
        self.thread.take().unwrap().join().unwrap();
        assert_eq!(self.metrics.waiting(), 0);
        (self.metrics.delivered.get(), self.metrics.failed_tries.get(), self.metrics.undelivered.get())
    }
}

/// RFC 2104 written out, so that what we send is not verified with what has signed it.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    assert!(key.len() <= 64);
    let mut block = [0u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = sha2::Sha256::digest([&pad(0x36)[..], message].concat());
    sha2::Sha256::digest([&pad(0x5c)[..], &inner].concat()).into()
}

#[test]
fn the_signature_is_that_of_standard_webhooks() {
    // The example of the specification's reference libraries.
    let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
    assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn an_alert_arrives_signed() {
    let receiver = Receiver::start(vec![TAKEN]);
    let rig = Rig::start(receiver.address, quick());
    rig.raise("billing");
    let (fields, body) = receiver.next();
    assert_eq!(field(&fields, ""), "POST /hooks?key=hidden HTTP/1.1");
    assert_eq!(field(&fields, "content-type"), "application/json");
    let (id, timestamp) = (field(&fields, "webhook-id"), field(&fields, "webhook-timestamp"));
    assert_eq!(timestamp, "1700000000");
    let signed = format!("{id}.{timestamp}.{body}");
    let want = [KEY, b"another key of more than 24 bytes"]
        .map(|key| format!("v1,{}", STANDARD.encode(hmac_sha256(key, signed.as_bytes()))));
    assert_eq!(field(&fields, "webhook-signature"), want.join(" "));
    let payload: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&payload["type"], &payload["timestamp"]),
        (&"ringwall.alert".into(), &"2023-11-14T22:13:20.123Z".into())
    );
    assert_eq!(payload["data"]["id"], id);
    assert_eq!(payload["data"]["kind"], "refresh-reuse");
    assert_eq!(payload["data"]["severity"], "HIGH");
    assert_eq!(payload["data"]["agent"], "billing");
    assert_eq!(rig.end(), (1, 0, 0));
}

#[test]
fn what_is_not_taken_is_sent_again_under_the_same_id() {
    let receiver =
        Receiver::start(vec![BROKEN, Do::Hang, Do::Answer("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n"), TAKEN]);
    let rig = Rig::start(receiver.address, quick());
    rig.raise("a");
    let seen: Vec<_> = (0..4).map(|_| receiver.next()).collect();
    assert!(
        seen.iter()
            .all(|(fields, body)| field(fields, "webhook-id") == field(&seen[0].0, "webhook-id") && *body == seen[0].1)
    );
    assert_eq!(rig.end(), (1, 3, 0));
}

#[test]
fn a_receiver_that_stalls_is_left() {
    let receiver = Receiver::start(vec![Do::Stall, TAKEN]);
    let rig = Rig::start(receiver.address, Patience { answer: Duration::from_millis(100), ..quick() });
    rig.raise("a");
    receiver.next();
    receiver.next();
    assert_eq!(rig.end(), (1, 1, 0));
}

#[test]
fn tries_are_bounded_in_number() {
    let receiver = Receiver::start(vec![BROKEN; 3]);
    let rig = Rig::start(receiver.address, Patience { tries: 3, ..quick() });
    rig.raise("a");
    (0..3).for_each(|_| drop(receiver.next()));
    assert_eq!(rig.end(), (0, 3, 1));
}

#[test]
fn tries_are_bounded_in_time() {
    let receiver = Receiver::start(vec![BROKEN]);
    let rig = Rig::start(receiver.address, Patience { life: Duration::ZERO, ..quick() });
    rig.raise("a");
    receiver.next();
    assert_eq!(rig.end(), (0, 1, 1));
}

#[test]
fn a_receiver_that_wants_no_more_gets_no_more_of_it() {
    let receiver = Receiver::start(vec![Do::Answer("HTTP/1.1 410 Gone\r\n\r\n"), TAKEN]);
    let rig = Rig::start(receiver.address, quick());
    rig.raise("a");
    receiver.next();
    rig.raise("b");
    receiver.next();
    assert_eq!(rig.end(), (1, 0, 1));
}

#[test]
fn nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rig = Rig::start(address, Patience { tries: 4, ..quick() });
    rig.raise("a");
    rig.raise("b");
    assert_eq!(rig.end(), (0, 8, 2));
}

#[test]
fn what_waits_is_bounded() {
    let metrics = Arc::new(AlertMetrics::default());
    let config = WebhookConfig { url: Secret::new("http://127.0.0.1:1/"), keys: Vec::new(), patience: quick(), clock };
    let webhook = Webhook::new(config, metrics.clone()).unwrap();
    let past = |n: usize| {
        let new = NewAlert { kind: AlertKind::RefreshReuse, subject: Subject::Gateway, details: String::new() };
        Alert::new(format!("{n:024x}"), NOW_MS, new)
    };
    let events = Arc::new(EventQueue::with_capacity(8, Arc::new(Bell::default())));
    let (alerts, exits) = Alerts::with_past((0..QUEUE).map(past).collect(), events, metrics.clone(), clock);
    let new = NewAlert { kind: AlertKind::RefreshReuse, subject: Subject::Agent("a".into()), details: String::new() };
    assert!(alerts.raise(new.clone()) && alerts.raise(NewAlert { subject: Subject::Agent("b".into()), ..new }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // The two are taken out of the outbox before anything is sent.
        let running = webhook.run(exits.outbox);
        let mut running = Box::pin(running);
        while metrics.undelivered.get() < 2 {
            assert!(futures_util::poll!(&mut running).is_pending());
            tokio::task::yield_now().await;
        }
    });
    let given_up = alerts.recent().iter().filter(|alert| alert.delivery() == Delivery::GivenUp).count();
    assert_eq!((given_up, metrics.undelivered.get()), (2, 2), "who comes to a full queue displaces nobody");
}

#[test]
fn what_an_earlier_process_has_left_is_sent_under_its_id_and_not_when_it_is_of_no_use() {
    let receiver = Receiver::start(vec![BROKEN, TAKEN]);
    let metrics = Arc::new(AlertMetrics::default());
    let config = WebhookConfig {
        url: Secret::new(format!("http://{}/", receiver.address)),
        keys: Vec::new(),
        patience: quick(),
        clock,
    };
    let webhook = Webhook::new(config, metrics.clone()).unwrap();
    let past = |id: u64, at_ms| {
        let new = NewAlert { kind: AlertKind::RefreshReuse, subject: Subject::Gateway, details: String::new() };
        Alert::new(format!("{id:024x}"), at_ms, new)
    };
    let day_ms = 24 * 3_600_000;
    let events = Arc::new(EventQueue::with_capacity(8, Arc::new(Bell::default())));
    let left = vec![past(2, NOW_MS - day_ms), past(1, NOW_MS - day_ms - 1)];
    let (alerts, exits) = Alerts::with_past(left, events, metrics.clone(), clock);
    let recent = alerts.recent();
    drop(alerts);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(webhook.run(exits.outbox));
    let seen: Vec<_> = (0..2).map(|_| field(&receiver.next().0, "webhook-id").to_owned()).collect();
    assert!(seen.iter().all(|id| *id == recent[0].id), "{seen:?}");
    assert_eq!((recent[0].delivery(), recent[1].delivery()), (Delivery::Delivered, Delivery::GivenUp));
    assert_eq!((metrics.delivered.get(), metrics.undelivered.get()), (1, 1));
}

#[test]
fn pauses_double_up_to_their_bound_and_are_spread() {
    let patience = Patience::default();
    for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (8, 128), (9, 256), (10, 300), (99, 300)] {
        let whole = Duration::from_secs(seconds);
        let pauses: Vec<_> = (0..50).map(|_| patience.pause(failures)).collect();
        assert!(pauses.iter().all(|pause| *pause >= whole / 2 && *pause <= whole), "{failures}: {pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{failures}: not spread");
    }
}

#[test]
fn an_asked_pause_is_read_in_seconds() {
    let asked =
        |text: &'static str| asked_pause(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]));
    assert_eq!(asked("7"), Duration::from_secs(7));
    assert_eq!(asked("-7"), Duration::ZERO);
    assert_eq!(asked("Wed, 21 Oct 2026 07:28:00 GMT"), Duration::ZERO);
    assert_eq!(asked_pause(&HeaderMap::new()), Duration::ZERO);
}

#[test]
fn without_a_key_nothing_is_signed() {
    let fields = headers(&[], "1", 2, "{}").unwrap();
    assert!(!fields.contains_key("webhook-signature"));
    assert_eq!(fields["webhook-id"], "1");
}
