//! Promise: an agent that shows its token gets a session, whose tokens are good on every door, are renewed one by one, and are worth nothing
//! the moment the session ends; and tokens of an outside issuer are good for as long as its keys say so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the threads of a test are its own")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use blackbox::{
    Client, Frame, Gateway, Next, PATIENCE, Peer, Response, TOKEN, Upstream, authenticate, call, until, upgrade,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const SECRET: &str = "b1946ac92492d2347c6235b4d2611184b1946ac92492d234";
const ALPHA: &str = "agent-token-of-alpha-0123456789abcdef0123";
const OPERATOR: &str = "orchestrator-token-of-32-characters";
const BETA: &str = "agent-token-of-beta-0123456789abcdef01234";

/// A port of our own choosing would not be free; so that URLs are the same after a restart, they are made from this name.
const SETTINGS: &[(&str, &str)] = &[("JWT_SECRET", SECRET), ("ALLOWED_HOSTS", "localhost")];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn policy(upstream: &Upstream) -> String {
    let hash = |token: &str| hex(&Sha256::digest(token.as_bytes()));
    format!(
        "[upstream.only]\nurl = \"http://{}/mcp\"\n[agent.alpha]\ntoken_sha256 = \"{}\"\n[agent.beta]\ntoken_sha256 = \"{}\"\n\
         [agent.off]\ntoken_sha256 = \"{}\"\nenabled = false\n",
        upstream.address,
        hash(ALPHA),
        hash(BETA),
        hash("off-token"),
    )
}

fn upstream() -> Upstream {
    Upstream::start(|request, conversation| conversation.echo(request))
}

fn start(settings: &[(&str, &str)], upstream: &Upstream) -> Gateway {
    Gateway::with_policy(&[SETTINGS, settings].concat(), &policy(upstream)).ready()
}

/// A request to the token endpoint, with any fields.
fn ask(gateway: &Gateway, path: &str, fields: &str, body: &str) -> Response {
    gateway.client().ask(
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
            .as_bytes(),
    )
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

fn token(gateway: &Gateway, body: &str) -> Response {
    ask(gateway, "/oauth/token", FORM, body)
}

#[derive(Clone, Debug)]
struct Pair {
    access: String,
    refresh: String,
}

impl Pair {
    fn of(response: &Response) -> Self {
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.field("cache-control").as_deref(), Some("no-store"));
        assert_eq!(response.field("content-type").as_deref(), Some("application/json"));
        let body = response.json();
        assert_eq!(
            (&body["token_type"], &body["expires_in"], &body["scope"]),
            (&"Bearer".into(), &900.into(), &"mcp".into())
        );
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }
}

fn login(gateway: &Gateway) -> Pair {
    Pair::of(&token(gateway, &format!("grant_type=client_credentials&client_id=alpha&client_secret={ALPHA}")))
}

fn refresh(gateway: &Gateway, token_: &str) -> Response {
    token(gateway, &format!("grant_type=refresh_token&refresh_token={token_}"))
}

fn revoke(gateway: &Gateway, token_: &str) -> Response {
    ask(gateway, "/oauth/revoke", FORM, &format!("token={token_}"))
}

/// A call over HTTP with this token.
fn call_with(gateway: &Gateway, token: &str) -> Response {
    let message = String::from_utf8(blackbox::post(&call(1))).unwrap();
    gateway.client().ask(message.replace(TOKEN, token).as_bytes())
}

fn is_refused(response: &Response) {
    assert_eq!(response.status, 401, "{response:?}");
    assert_eq!(response.json(), json!({"error": "Invalid or revoked token"}));
    assert!(response.field("www-authenticate").unwrap().starts_with("Bearer "));
}

fn error(response: &Response, status: u16, error: &str) {
    assert_eq!((response.status, &response.json()["error"]), (status, &error.into()), "{response:?}");
    assert_eq!(response.field("cache-control").as_deref(), Some("no-store"));
    assert!(response.json()["error_description"].is_string());
}

/// The agent that the upstream has seen in its last call.
fn agent_seen(upstream: &Upstream) -> Value {
    serde_json::from_slice::<Value>(&upstream.last().body).unwrap()["params"]["arguments"]["agentId"].clone()
}

#[test]
fn a_session_s_token_is_the_agent_s_on_every_door() {
    let upstream = upstream();
    let gateway = start(&[], &upstream);
    let pair = login(&gateway);
    assert_eq!(call_with(&gateway, &pair.access).status, 200);
    assert_eq!(agent_seen(&upstream), "alpha");
    let mut websocket = Peer::websocket_with(&gateway, &pair.access);
    assert_eq!(websocket.ask(&blackbox::initialize())["id"], 0);
    let (browser, switched) =
        upgrade(&gateway, "/ws", &format!("Sec-WebSocket-Protocol: mcp, bearer.{}\r\n", pair.access));
    assert_eq!(switched.status, 101, "{switched:?}");
    drop(browser);
    let (client, switched) = upgrade(&gateway, "/ws", "");
    assert_eq!(switched.status, 101);
    Peer::on(client).authenticate(&pair.access);
    let mut lines = Peer::tcp_with(&gateway, &pair.access);
    assert_eq!(lines.ask(&blackbox::initialize())["id"], 0);
    let mut stream = sse(&gateway, &pair.access);
    assert_eq!(stream.head().status, 200);
    for door in ["http", "ws", "tcp"] {
        gateway.audited("auth_success", |line| {
            line["agentId"] == "alpha" && line["clientId"].as_str().is_some_and(|id| id.starts_with(door))
        });
    }
    // And nobody's else: a byte changed, and a token that looks like one.
    let forged = format!("{}A", &pair.access[..pair.access.len() - 1]);
    let failed = gateway.metric("ringwall_auth_failures_total");
    is_refused(&call_with(&gateway, if forged == pair.access { "eyJ.e30.AAAA" } else { &forged }));
    is_refused(&call_with(&gateway, "eyJhbGciOiJub25lIn0.e30."));
    is_refused(&call_with(&gateway, &pair.refresh));
    let mut stranger = Peer::stranger(&gateway);
    assert_eq!(stranger.ask(&authenticate("1", &format!("{}x", pair.access)))["error"]["code"], -32000);
    assert!(stranger.client.is_closed());
    gateway.audited("invalid_auth", |line| line["details"] == "JWT: signature does not fit");
    until("failures to be counted", || gateway.metric("ringwall_auth_failures_total") >= failed + 4.0);
}

fn sse(gateway: &Gateway, token: &str) -> Client {
    let mut client = gateway.client();
    client.send(
        format!(
            "GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
        .as_bytes(),
    );
    client
}

#[test]
fn a_client_says_who_it_is_as_the_rfc_lets_it() {
    let upstream = upstream();
    let gateway = start(&[], &upstream);
    let basic = |pair: &str| format!("{FORM}Authorization: Basic {}\r\n", STANDARD.encode(pair));
    let grant = "grant_type=client_credentials";
    Pair::of(&ask(&gateway, "/oauth/token", &basic(&format!("alpha:{ALPHA}")), grant));
    let body = json!({"grant_type": "client_credentials", "client_id": "alpha", "client_secret": ALPHA}).to_string();
    Pair::of(&ask(&gateway, "/oauth/token", JSON, &body));
    for (fields, body, status, code) in [
        (basic("alpha:wrong"), grant.to_owned(), 401, "invalid_client"),
        (basic(&format!("beta:{ALPHA}")), grant.to_owned(), 401, "invalid_client"),
        (basic("off:off-token"), grant.to_owned(), 401, "invalid_client"),
        (basic(&format!("door:{TOKEN}")), grant.to_owned(), 401, "invalid_client"),
        (format!("{FORM}Authorization: Bearer {ALPHA}\r\n"), grant.to_owned(), 401, "invalid_client"),
        (basic(&format!("alpha:{ALPHA}")), format!("{grant}&client_secret=x"), 400, "invalid_request"),
        (FORM.to_owned(), grant.to_owned(), 401, "invalid_client"),
        (FORM.to_owned(), "grant_type=password&username=a&password=b".to_owned(), 400, "unsupported_grant_type"),
        (FORM.to_owned(), "grant_type=refresh_token&refresh_token=x".to_owned(), 400, "invalid_grant"),
        (FORM.to_owned(), String::new(), 400, "invalid_request"),
        (FORM.to_owned(), "grant_type=%".to_owned(), 400, "invalid_request"),
        (JSON.to_owned(), "{".to_owned(), 400, "invalid_request"),
        (JSON.to_owned(), r#"{"grant_type":"a","grant_type":"b"}"#.to_owned(), 400, "invalid_request"),
    ] {
        let refused = ask(&gateway, "/oauth/token", &fields, &body);
        error(&refused, status, code);
        let challenge = refused.field("www-authenticate");
        assert_eq!(challenge.as_deref(), (status == 401).then_some("Basic realm=\"ringwall\""));
    }
    // Seven wrong credentials, and every one of them was seen.
    gateway.audited("invalid_auth", |line| {
        line["details"].as_str().is_some_and(|text| text.starts_with("token request: "))
    });
    until("failures to be counted", || gateway.metric("ringwall_auth_failures_total") >= 7.0);
    // What is no request for a token at all.
    let allowed = gateway.get("/oauth/token");
    assert_eq!((allowed.status, allowed.field("allow").as_deref()), (405, Some("POST")));
    assert_eq!(ask(&gateway, "/oauth/token", "Content-Type: text/plain\r\n", grant).status, 415);
    assert_eq!(ask(&gateway, "/oauth/token", &format!("{FORM}Content-Encoding: gzip\r\n"), grant).status, 415);
    assert_eq!(ask(&gateway, "/oauth/token", "", grant).status, 415);
    assert_eq!(ask(&gateway, "/oauth/token", FORM, &"a".repeat(16 * 1024 + 1)).status, 413);
    let mut bound = gateway.client();
    let full = format!("x={}", "a".repeat(16 * 1024 - 2));
    let head = format!("POST /oauth/token HTTP/1.1\r\nHost: localhost\r\n{FORM}Content-Length: {}\r\n\r\n", full.len());
    assert_eq!(bound.ask([head.as_bytes(), full.as_bytes()].concat().as_slice()).status, 400, "at the bound");
    drop(bound);
    assert_eq!(ask(&gateway, "/oauth/token", &format!("{FORM}Origin: https://evil.example\r\n"), grant).status, 403);
    gateway.unharmed();
    let log = gateway.log();
    assert!(!log.contains(ALPHA) && !log.contains("eyJ") && !log.contains("rwr_"), "no secret is logged");
    let trail = gateway.trail().iter().map(Value::to_string).collect::<String>();
    assert!(!trail.contains(ALPHA) && !trail.contains("eyJ") && !trail.contains("rwr_"), "nor recorded");
}

#[test]
fn documents_say_where_tokens_come_from() {
    let upstream = upstream();
    let gateway = start(&[], &upstream);
    let server = gateway.get("/.well-known/oauth-authorization-server");
    assert_eq!(server.status, 200);
    let server = server.json();
    assert_eq!(server["issuer"], "http://localhost");
    assert_eq!(server["token_endpoint"], "http://localhost/oauth/token");
    assert_eq!(server["revocation_endpoint"], "http://localhost/oauth/revoke");
    assert_eq!(server["grant_types_supported"], json!(["client_credentials", "refresh_token"]));
    let resource = gateway.get("/.well-known/oauth-protected-resource/mcp").json();
    assert_eq!(resource["authorization_servers"], json!(["http://localhost"]));
    assert_eq!(resource["resource"], "http://localhost/mcp");
    // A token may be asked for by that very name.
    let body = format!(
        "grant_type=client_credentials&client_id=alpha&client_secret={ALPHA}&resource=http%3A%2F%2Flocalhost%2Fmcp&scope=mcp"
    );
    let pair = Pair::of(&token(&gateway, &body));
    let claims = URL_SAFE_NO_PAD.decode(pair.access.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["iss"], &claims["aud"]), (&server["issuer"], &resource["resource"]));
    assert_eq!((&claims["sub"], &claims["scope"]), (&"alpha".into(), &"mcp".into()));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 900);
    for name in ["jti", "sid"] {
        assert_eq!(claims[name].as_str().unwrap().len(), 22, "{name}");
    }
}

#[test]
fn without_a_secret_there_are_no_sessions() {
    let upstream = upstream();
    let gateway = Gateway::with_policy(&[], &policy(&upstream)).ready();
    let body = format!("grant_type=client_credentials&client_id=alpha&client_secret={ALPHA}");
    error(&token(&gateway, &body), 503, "temporarily_unavailable");
    error(&revoke(&gateway, "x"), 503, "temporarily_unavailable");
    assert_eq!(gateway.get("/.well-known/oauth-authorization-server").status, 404);
    assert_eq!(gateway.get("/.well-known/oauth-protected-resource").json().get("authorization_servers"), None);
    // A token that another gateway has issued, with a secret, is worth nothing here.
    let other = start(&[], &upstream);
    is_refused(&call_with(&gateway, &login(&other).access));
}

#[test]
fn a_refresh_token_that_is_used_twice_ends_the_session_everywhere_within_a_second() {
    let upstream = upstream();
    let gateway = start(&[], &upstream);
    let first = login(&gateway);
    let other = login(&gateway);
    let second = Pair::of(&refresh(&gateway, &first.refresh));
    let third = Pair::of(&refresh(&gateway, &second.refresh));
    let mut doors = [Peer::websocket_with(&gateway, &first.access), Peer::tcp_with(&gateway, &third.access)];
    let mut stream = sse(&gateway, &second.access);
    assert_eq!(stream.head().status, 200);
    let mut bystander = Peer::websocket_with(&gateway, &other.access);
    error(&refresh(&gateway, &second.refresh), 400, "invalid_grant");
    let ended = Instant::now();
    assert_eq!(doors[0].frame(), Frame::Close(1008, "Closed by the gateway".to_owned()));
    assert_eq!(doors[1].try_hear(), None);
    stream.rest();
    // The clock of a busy machine is no judge; what must not be is that they stay.
    assert!(ended.elapsed() < PATIENCE);
    let alarm = gateway.audited("refresh_reuse", |line| line["agentId"] == "alpha");
    assert_eq!((&alarm["severity"], &alarm["ip"]), (&"HIGH".into(), &gateway.pseudonym("127.0.0.1").into()));
    for pair in [&first, &second, &third] {
        is_refused(&call_with(&gateway, &pair.access));
        error(&refresh(&gateway, &pair.refresh), 400, "invalid_grant");
    }
    assert_eq!(bystander.ask(&blackbox::initialize())["id"], 0, "another session lives on");
    gateway.audited("invalid_auth", |line| line["details"] == "JWT: session has ended");
}

#[test]
fn of_many_refreshes_at_once_at_most_one_is_granted() {
    let upstream = upstream();
    let gateway = start(&[("WORKERS", "4")], &upstream);
    for _ in 0..5 {
        let pair = login(&gateway);
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| refresh(&gateway, &pair.refresh))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // None where another use is noticed before the first is answered: its session has ended by then, and what it would be given with it.
        let granted: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert!(granted.len() <= 1);
        for answer in granted {
            is_refused(&call_with(&gateway, &Pair::of(answer).access));
        }
        for refused in answers.iter().filter(|answer| answer.status != 200) {
            error(refused, 400, "invalid_grant");
        }
    }
}

#[test]
fn a_session_that_is_ended_closes_what_was_opened_with_it() {
    let upstream = upstream();
    let gateway = start(&[], &upstream);
    let (pair, other) = (login(&gateway), login(&gateway));
    let mut ended = [Peer::websocket_with(&gateway, &pair.access), Peer::tcp_with(&gateway, &pair.access)];
    let mut kept = Peer::tcp_with(&gateway, &other.access);
    let mut requests = gateway.client();
    let message = String::from_utf8(blackbox::post(&call(1))).unwrap().replace(TOKEN, &pair.access);
    for _ in 0..3 {
        assert_eq!(requests.ask(message.as_bytes()).status, 200);
    }
    let answer = revoke(&gateway, &pair.access);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    is_refused(&call_with(&gateway, &pair.access));
    assert_eq!(ended[0].frame(), Frame::Close(1008, "Closed by the gateway".to_owned()));
    assert_eq!(ended[1].try_hear(), None);
    assert!(requests.is_closed());
    gateway.audited("connection_closed", |line| line["details"] == "credential revoked");
    gateway.audited("token_revoked", |line| line["agentId"] == "alpha");
    assert_eq!(kept.ask(&blackbox::initialize())["id"], 0);
    assert_eq!(revoke(&gateway, &pair.refresh).status, 200, "again");
    assert_eq!(revoke(&gateway, "nonsense").status, 200);
    error(&ask(&gateway, "/oauth/revoke", FORM, ""), 400, "invalid_request");
}

#[test]
fn an_access_token_expires_also_on_a_connection_that_has_shown_it_before() {
    let upstream = upstream();
    let gateway = Gateway::with_policy(&[SETTINGS, &[("JWT_ACCESS_TTL", "3")]].concat(), &policy(&upstream)).ready();
    let body = format!("grant_type=client_credentials&client_id=alpha&client_secret={ALPHA}");
    let pair = token(&gateway, &body).json();
    assert_eq!(pair["expires_in"], 3);
    let text = |name: &str| pair[name].as_str().unwrap().to_owned();
    let mut open = Peer::websocket_with(&gateway, &text("access_token"));
    let mut requests = gateway.client();
    let message = String::from_utf8(blackbox::post(&call(1))).unwrap().replace(TOKEN, &text("access_token"));
    assert_eq!(requests.ask(message.as_bytes()).status, 200);
    let mut last = None;
    until("the token to expire", || {
        let answer = requests.ask(message.as_bytes());
        assert!(matches!(answer.status, 200 | 401), "{answer:?}");
        (answer.status == 401).then(|| last.replace(answer)).is_some()
    });
    is_refused(&last.unwrap());
    gateway.audited("invalid_auth", |line| line["details"] == "JWT: expired");
    // The session is not over: what was opened stays, and there is a next token.
    assert_eq!(open.ask(&blackbox::initialize())["id"], 0);
    assert_eq!(refresh(&gateway, &text("refresh_token")).status, 200);
}

#[test]
fn an_agent_has_so_many_sessions_and_no_more() {
    let upstream = upstream();
    let gateway = start(&[("MAX_CONCURRENT_SESSIONS", "2")], &upstream);
    let body = format!("grant_type=client_credentials&client_id=alpha&client_secret={ALPHA}");
    let first = login(&gateway);
    login(&gateway);
    error(&token(&gateway, &body), 429, "temporarily_unavailable");
    let beta = format!("grant_type=client_credentials&client_id=beta&client_secret={BETA}");
    Pair::of(&token(&gateway, &beta));
    assert_eq!(revoke(&gateway, &first.refresh).status, 200);
    login(&gateway);
    error(&token(&gateway, &body), 429, "temporarily_unavailable");
}

#[test]
fn an_idle_session_ends_and_one_in_use_does_not() {
    let upstream = upstream();
    let settings = [("SESSION_TIMEOUT", "4000"), ("SESSION_CLEANUP_INTERVAL", "200")];
    let gateway = start(&settings, &upstream);
    let (idle, busy) = (login(&gateway), login(&gateway));
    let mut talker = Peer::websocket_with(&gateway, &busy.access);
    talker.ask(&blackbox::initialize());
    let mut silent = Peer::tcp_with(&gateway, &idle.access);
    let mut id = 0;
    until("the idle session to end", || {
        id += 1;
        talker.ask(&call(id));
        // A request with its token would be a use of it: so only its connection is looked at.
        silent.client.stream.set_nonblocking(true).unwrap();
        let ended = matches!(silent.client.stream.read(&mut [0; 1]), Ok(0));
        silent.client.stream.set_nonblocking(false).unwrap();
        ended
    });
    is_refused(&call_with(&gateway, &idle.access));
    error(&refresh(&gateway, &idle.refresh), 400, "invalid_grant");
    assert_eq!(call_with(&gateway, &busy.access).status, 200);
    Pair::of(&refresh(&gateway, &busy.refresh));
}

#[test]
fn a_restart_keeps_sessions_and_brings_none_back() {
    let upstream = upstream();
    let mut gateway = start(&[], &upstream);
    let (kept, ended) = (login(&gateway), login(&gateway));
    let renewed = Pair::of(&refresh(&gateway, &kept.refresh));
    assert_eq!(revoke(&gateway, &ended.refresh).status, 200);
    // Everything was on disk before it was answered.
    gateway.signal(Signal::KILL);
    gateway.exit();
    let gateway = gateway.again(SETTINGS).ready();
    assert_eq!(call_with(&gateway, &kept.access).status, 200);
    assert_eq!(call_with(&gateway, &renewed.access).status, 200);
    is_refused(&call_with(&gateway, &ended.access));
    error(&refresh(&gateway, &ended.refresh), 400, "invalid_grant");
    let last = Pair::of(&refresh(&gateway, &renewed.refresh));
    // The reuse of a token from before is seen as well.
    error(&refresh(&gateway, &kept.refresh), 400, "invalid_grant");
    is_refused(&call_with(&gateway, &last.access));
    gateway.audited("refresh_reuse", |_| true);
}

#[test]
fn another_secret_and_an_agent_that_is_gone_end_sessions() {
    let upstream = upstream();
    let mut gateway = start(&[], &upstream);
    let pair = login(&gateway);
    gateway.signal(Signal::TERM);
    gateway.exit();
    let other = [("JWT_SECRET", "another-secret-of-at-least-32-characters"), ("ALLOWED_HOSTS", "localhost")];
    let mut gateway = gateway.again(&other).ready();
    is_refused(&call_with(&gateway, &pair.access));
    error(&refresh(&gateway, &pair.refresh), 400, "invalid_grant");
    gateway.signal(Signal::TERM);
    gateway.exit();
    let file = gateway.folder().join("ringwall.toml");
    let policy =
        std::fs::read_to_string(&file).unwrap().replace(&hex(&Sha256::digest(ALPHA)), &hex(&Sha256::digest("new")));
    std::fs::write(file, policy).unwrap();
    let gateway = gateway.again(SETTINGS).ready();
    is_refused(&call_with(&gateway, &pair.access));
    error(&refresh(&gateway, &pair.refresh), 400, "invalid_grant");
}

/// A request to the admin API.
fn admin(gateway: &Gateway, method: &str, path: &str, body: &str) -> Response {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n");
    let length = format!("{JSON}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    Client::connect(gateway.admin).ask(format!("{head}{length}{body}").as_bytes())
}

#[test]
fn an_operator_lists_sessions_and_ends_them() {
    let upstream = upstream();
    let gateway = start(&[("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR)], &upstream);
    let list = |query: &str| {
        let page = admin(&gateway, "GET", &format!("/admin/sessions{query}"), "");
        assert_eq!(page.status, 200, "{page:?}");
        page.json()
    };
    let ids = |page: &Value| -> Vec<String> {
        let sessions = page["sessions"].as_array().unwrap();
        sessions.iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(list(""), json!({"sessions": [], "next": null}));
    let pairs: Vec<Pair> = (0..3).map(|_| login(&gateway)).collect();
    let beta = token(&gateway, &format!("grant_type=client_credentials&client_id=beta&client_secret={BETA}"));
    assert_eq!(beta.status, 200);
    let all = ids(&list(""));
    assert_eq!(all.len(), 4);
    let mut paged = Vec::new();
    let mut query = "?limit=1".to_owned();
    loop {
        let page = list(&query);
        paged.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=1&cursor={next}");
    }
    assert_eq!(paged, all);
    let of_beta = list("?agent=beta");
    assert_eq!((ids(&of_beta).len(), &of_beta["sessions"][0]["agent"]), (1, &"beta".into()));

    // The name is the one in its tokens.
    let claims = pairs[1].access.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let sid = claims["sid"].as_str().unwrap();
    assert!(all.iter().any(|id| id == sid));
    let mut door = Peer::websocket_with(&gateway, &pairs[1].access);
    let ended = admin(&gateway, "DELETE", &format!("/admin/sessions/{sid}"), "");
    assert_eq!((ended.status, ended.json()), (200, json!({"id": sid, "agent": "alpha"})));
    is_refused(&call_with(&gateway, &pairs[1].access));
    error(&refresh(&gateway, &pairs[1].refresh), 400, "invalid_grant");
    assert_eq!(door.frame(), Frame::Close(1008, "Closed by the gateway".to_owned()));
    assert_eq!(call_with(&gateway, &pairs[0].access).status, 200, "another lives on");
    assert!(!ids(&list("")).iter().any(|id| id == sid));
    let line = gateway.audited("token_revoked", |line| line["rule"] == "operator");
    assert_eq!((&line["agentId"], &line["ip"]), (&"alpha".into(), &gateway.pseudonym("127.0.0.1").into()));
    let again = admin(&gateway, "DELETE", &format!("/admin/sessions/{sid}"), "");
    assert_eq!((again.status, &again.json()["code"]), (404, &"session_not_open".into()));
    for (path, status) in [("/admin/sessions/x", 404), ("/admin/sessions?cursor=AA", 400), ("/admin/sessions?x=1", 400)]
    {
        let method = if path.contains('?') { "GET" } else { "DELETE" };
        assert_eq!(admin(&gateway, method, path, "").status, status, "{path}");
    }
}

#[test]
fn an_alert_outlives_the_gateway_and_is_delivered_by_the_next_under_its_name() {
    let upstream = upstream();
    let is_open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&is_open);
    let hooks = Upstream::start(move |_, conversation| {
        let answer = if opened.load(Ordering::Relaxed) { "204 No Content" } else { "500 Oops" };
        conversation.send(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
        Next::Close
    });
    let url = format!("http://{}/hook", hooks.address);
    let settings = [("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR), ("ALERT_WEBHOOK_URL", url.as_str())];
    let mut gateway = start(&settings, &upstream);
    let first = login(&gateway);
    Pair::of(&refresh(&gateway, &first.refresh));
    error(&refresh(&gateway, &first.refresh), 400, "invalid_grant");
    hooks.wait("a try", |log| !log.requests.is_empty());
    let id = hooks.last().field("webhook-id").unwrap();
    let listed = |gateway: &Gateway| {
        let page = admin(gateway, "GET", "/admin/alerts", "");
        assert_eq!(page.status, 200, "{page:?}");
        page.json()["alerts"].as_array().unwrap().clone()
    };
    let before = listed(&gateway);
    assert_eq!((before.len(), &before[0]["id"], &before[0]["delivery"]), (1, &id.clone().into(), &"pending".into()));
    until("the record", || gateway.metric("ringwall_store_queue_length") < 0.5);
    gateway.signal(Signal::KILL);
    gateway.exit();
    hooks.take_requests();

    let mut gateway = gateway.again(&[SETTINGS, &settings].concat()).ready();
    hooks.wait("another try", |log| !log.requests.is_empty());
    assert!(hooks.take_requests().iter().all(|request| request.field("webhook-id").as_ref() == Some(&id)));
    assert_eq!(listed(&gateway), before, "it is as it was");
    is_open.store(true, Ordering::Relaxed);
    until("the delivery", || listed(&gateway)[0]["delivery"] == "delivered");
    gateway.signal(Signal::TERM);
    gateway.exit();
    hooks.take_requests();

    let gateway = gateway.again(&[SETTINGS, &settings].concat()).ready();
    assert_eq!(listed(&gateway)[0]["delivery"], "delivered");
    assert!(hooks.requests().is_empty(), "once it was taken it is not sent again");
}

#[test]
fn a_session_ends_with_the_token_it_was_opened_with() {
    let upstream = upstream();
    let gateway = start(&[("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR)], &upstream);
    let issued = admin(&gateway, "POST", "/admin/tokens", r#"{"agent":"gamma"}"#);
    assert_eq!(issued.status, 201, "{issued:?}");
    let issued = issued.json();
    let (secret, id) = (issued["secret"].as_str().unwrap(), issued["token"]["id"].as_str().unwrap());
    let body = format!("grant_type=client_credentials&client_id=gamma&client_secret={secret}");
    let pair = Pair::of(&token(&gateway, &body));
    assert_eq!(call_with(&gateway, &pair.access).status, 200);
    assert_eq!(agent_seen(&upstream), "gamma");
    let mut open = [Peer::websocket_with(&gateway, &pair.access), Peer::tcp_with(&gateway, &pair.access)];
    let mut bystander = Peer::websocket_with(&gateway, &login(&gateway).access);
    assert_eq!(admin(&gateway, "DELETE", &format!("/admin/tokens/{id}"), "").status, 200);
    is_refused(&call_with(&gateway, &pair.access));
    error(&refresh(&gateway, &pair.refresh), 400, "invalid_grant");
    error(&token(&gateway, &body), 401, "invalid_client");
    assert_eq!(open[0].frame(), Frame::Close(1008, "Closed by the gateway".to_owned()));
    assert_eq!(open[1].try_hear(), None);
    assert_eq!(bystander.ask(&blackbox::initialize())["id"], 0, "another agent's session lives on");
}

/// An outside issuer: its keys, and a server that publishes some of them.
struct Issuer {
    address: SocketAddr,
    document: Arc<Mutex<String>>,
    asked: Arc<Mutex<usize>>,
}

impl Issuer {
    fn start(document: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (document, asked) = (Arc::new(Mutex::new(document.to_owned())), Arc::new(Mutex::new(0)));
        let (published, count) = (Arc::clone(&document), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    head.extend(byte);
                }
                *count.lock().unwrap() += 1;
                let body = published.lock().unwrap().clone();
                let _ = stream.write_all(
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
                        .as_bytes(),
                );
            }
        });
        Self { address, document, asked }
    }

    fn publish(&self, keys: &[Value]) {
        *self.document.lock().unwrap() = json!({ "keys": keys }).to_string();
    }
}

struct Signer {
    kid: &'static str,
    key: EcdsaKeyPair,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Self { kid, key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "kid": self.kid, "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])})
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"iss": "https://id.example", "aud": "ringwall", "sub": "alpha", "exp": now + 600});
        change(&mut claims);
        let header = json!({"alg": "ES256", "kid": self.kid});
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

#[test]
fn an_outside_issuer_s_tokens_are_good_for_as_long_as_its_keys_say_so() {
    let upstream = upstream();
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    let issuer = Issuer::start(&json!({"keys": [one.jwk()]}).to_string());
    let url = format!("http://{}/keys", issuer.address);
    let settings = [("JWKS_URL", url.as_str()), ("JWT_ISSUER", "https://id.example"), ("JWT_AUDIENCE", "ringwall")];
    let gateway = start(&settings, &upstream);
    let token = one.token(|_| {});
    until("the keys to be fetched", || call_with(&gateway, &token).status == 200);
    assert_eq!(agent_seen(&upstream), "alpha");
    let servers = &gateway.get("/.well-known/oauth-protected-resource").json()["authorization_servers"];
    assert_eq!(servers, &json!(["http://localhost", "https://id.example"]));
    Peer::tcp_with(&gateway, &token).ask(&blackbox::initialize());
    Peer::websocket_with(&gateway, &token).ask(&blackbox::initialize());
    assert_eq!(sse(&gateway, &token).head().status, 200);
    // Ours are told from theirs.
    assert_eq!(call_with(&gateway, &login(&gateway).access).status, 200);
    error(&revoke(&gateway, &token), 400, "unsupported_token_type");
    for (name, bad) in [
        ("another audience", one.token(|claims| claims["aud"] = "other".into())),
        ("another issuer", one.token(|claims| claims["iss"] = "https://id.example/".into())),
        ("expired", one.token(|claims| claims["exp"] = 1_700_000_000.into())),
        ("an agent that is switched off", one.token(|claims| claims["sub"] = "off".into())),
        ("no agent's id", one.token(|claims| claims["sub"] = "../alpha".into())),
        ("another's key", Signer::new("one").token(|_| {})),
        ("a key that is not published", two.token(|_| {})),
    ] {
        println!("{name}");
        is_refused(&call_with(&gateway, &bad));
    }
    // The issuer takes another key: whose tokens name it find it fetched, and the old one's are worth nothing.
    let mut open = Peer::tcp_with(&gateway, &token);
    issuer.publish(&[two.jwk()]);
    let fresh = two.token(|_| {});
    until("the new key to be fetched", || call_with(&gateway, &fresh).status == 200);
    is_refused(&call_with(&gateway, &token));
    // A connection that was opened before is one of a token that was good then, until it expires.
    assert_eq!(open.ask(&blackbox::initialize())["id"], 0);
    let short = two.token(|claims| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        claims["exp"] = (now - 28).into();
    });
    let mut ends = Peer::websocket_with(&gateway, &short);
    assert_eq!(ends.frame(), Frame::Close(1008, "Closed by the gateway".to_owned()));
    // Names that are made up do not make us knock again and again.
    let before = *issuer.asked.lock().unwrap();
    for _ in 0..50 {
        is_refused(&call_with(&gateway, &Signer::new("made-up").token(|_| {})));
    }
    let after = *issuer.asked.lock().unwrap();
    assert!(after - before <= 3, "{before} to {after}");
    // An issuer that is down, or says nonsense, takes nothing away.
    *issuer.document.lock().unwrap() = "<html>".to_owned();
    assert_eq!(call_with(&gateway, &fresh).status, 200);
}

#[test]
fn tokens_by_ed25519_are_good_as_well() {
    let upstream = upstream();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let jwk =
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": URL_SAFE_NO_PAD.encode(key.public_key().as_ref())});
    let issuer = Issuer::start(&json!({ "keys": [jwk] }).to_string());
    let url = format!("http://{}/keys", issuer.address);
    // Without sessions of our own, and the agent by another claim.
    let settings = [
        ("JWKS_URL", url.as_str()),
        ("JWT_ISSUER", "https://id.example"),
        ("JWT_AUDIENCE", "ringwall"),
        ("JWT_AGENT_CLAIM", "client_id"),
    ];
    let gateway = Gateway::with_policy(&settings, &policy(&upstream)).ready();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"iss": "https://id.example", "aud": ["x", "ringwall"], "sub": "a|b", "client_id": "beta", "exp": now + 600});
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"ed"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).as_ref()));
    until("the keys to be fetched", || call_with(&gateway, &token).status == 200);
    assert_eq!(agent_seen(&upstream), "beta");
}
