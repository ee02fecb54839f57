//! Promise: who guesses credentials, and whom an operator blocks, is kept out of every listener before a byte is read; what is open ends; a lift, an
//! end and a success undo it; a restart does not; and nobody is kept out for what another has done.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::net::SocketAddr;

use blackbox::{
    Client, Frame, Gateway, PATIENCE, Peer, Response, TOKEN, Upstream, authenticate, call, post, until, upgrade,
};
use serde_json::Value;

const OPERATOR: &str = "an-operators-token-of-more-than-32-characters";
const OPERATORS: (&str, &str) = ("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR);
const TEN: (&str, &str) = ("MAX_FAILED_ATTEMPTS", "10");
/// An address of the loopback network, for clients that are not the operator's.
const CLIENT: &str = "127.0.0.9";

/// A connection from this address.
fn from(door: SocketAddr, ip: &str) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
    socket.connect_timeout(&door.into(), PATIENCE).expect("connect");
    Client::on(socket.into())
}

fn wrong(request: &[u8]) -> Vec<u8> {
    String::from_utf8(request.to_vec()).unwrap().replace(TOKEN, "wrong").into_bytes()
}

/// Whether the client's next call is answered. What is refused may be closed before it is read.
fn is_served(gateway: &Gateway) -> bool {
    let mut client = from(gateway.bridge, CLIENT);
    client.try_send(&post(&call(9))) && client.try_response().is_some_and(|answer| answer.status == 200)
}

/// What somebody gets who says nothing.
fn told(door: SocketAddr, ip: &str) -> Vec<u8> {
    from(door, ip).rest()
}

fn is_locked_out(response: &Response) {
    assert_eq!(response.status, 429, "{response:?}");
    assert_eq!(response.text(), "{\"error\":\"Too many failed attempts. Try again later.\"}");
    let after: u64 = response.field("retry-after").unwrap().parse().unwrap();
    assert!((800..=900).contains(&after), "{after}");
}

fn admin(gateway: &Gateway, request: &str) -> Response {
    let mut client = Client::connect(gateway.admin);
    let (line, rest) = request.split_once("\r\n").unwrap_or((request, "\r\n"));
    client.ask(format!("{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n{rest}").as_bytes())
}

/// `ringwall` with these arguments, where the gateway is.
fn ringwall(gateway: &Gateway, arguments: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringwall"));
    command.args(arguments).current_dir(gateway.folder()).env_clear();
    command.env("ADMIN_PORT", gateway.admin.port().to_string()).env(OPERATORS.0, OPERATORS.1);
    command.output().unwrap()
}

fn block(gateway: &Gateway, body: &str) -> Response {
    let length = body.len();
    admin(
        gateway,
        &format!("POST /admin/blocks\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"),
    )
}

fn lift(gateway: &Gateway, network: &str) -> Response {
    admin(gateway, &format!("DELETE /admin/blocks/{network}"))
}

fn blocks(gateway: &Gateway) -> Vec<Value> {
    let listed = admin(gateway, "GET /admin/blocks");
    assert_eq!(listed.status, 200, "{listed:?}");
    listed.json()["blocks"].as_array().unwrap().clone()
}

#[test]
fn the_tenth_failure_locks_out_of_every_door_and_the_right_token_does_not_help() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[TEN, OPERATORS], upstream.address).ready();
    let mut client = from(gateway.bridge, CLIENT);
    let fail = |client: &mut Client| assert_eq!(client.ask(&wrong(&post(&call(1)))).status, 401);
    (0..9).for_each(|_| fail(&mut client));
    assert_eq!(client.ask(&post(&call(2))).status, 200, "which takes the nine back");
    // Who shows nothing guesses nothing.
    for _ in 0..20 {
        let nothing =
            String::from_utf8(post(&call(1))).unwrap().replace(&format!("Authorization: Bearer {TOKEN}\r\n"), "");
        assert_eq!(client.ask(nothing.as_bytes()).status, 401);
    }
    (0..10).for_each(|_| fail(&mut client));
    // The same connection, at once, with the right token.
    is_locked_out(&client.ask(&post(&call(3))));
    assert!(client.is_closed());
    let calls = upstream.requests().len();
    // New ones are refused before anything is read, on every listener.
    is_locked_out(&from(gateway.bridge, CLIENT).response());
    assert_eq!(told(gateway.tcp, CLIENT), b"{\"error\":\"Forbidden\"}\n");
    // Loopback stands apart at the control listeners: see the test of who does not.
    assert_eq!(upstream.requests().len(), calls);
    // Others are not concerned.
    assert_eq!(gateway.post(&call(4)).status, 200);
    let lockout = gateway.audited("lockout", |_| true);
    assert_eq!((&lockout["severity"], &lockout["ip"]), (&"HIGH".into(), &gateway.pseudonym(CLIENT).into()));
    gateway.audited("alert", |line| line["rule"] == "brute-force-lockout");
    gateway.audited("blocked_connection", |line| {
        line["rule"] == "lockout" && line["details"].as_str().unwrap().starts_with("BLOCKED")
    });
    assert_eq!(gateway.trail().iter().filter(|line| line["event"] == "lockout").count(), 1);
    assert_eq!(gateway.metric_of("ringwall_blocks", "kind=\"lockout\"") as u64, 1);
    // A lift works at once, and takes back what was counted.
    assert_eq!(blocks(&gateway)[0]["kind"], "lockout");
    assert_eq!(lift(&gateway, CLIENT).status, 200);
    let mut client = from(gateway.bridge, CLIENT);
    for _ in 0..9 {
        assert_eq!(client.ask(&wrong(&post(&call(1)))).status, 401);
    }
    assert_eq!(client.ask(&post(&call(5))).status, 200);
    drop(client);
    gateway.unharmed();
}

/// One wrong credential at a door, and whether it was looked at.
type Guess = (&'static str, fn(&Gateway, &str) -> bool);

#[test]
fn failures_count_at_every_door() {
    let upstream = Upstream::echo();
    let secret = ("JWT_SECRET", "a-secret-for-tokens-of-at-least-32-characters");
    let gateway = Gateway::start(&[TEN, OPERATORS, secret, ("SSE_QUERY_TOKEN", "true")], upstream.address).ready();
    let guesses: [Guess; 7] = [
        ("http", |gateway, ip| from(gateway.bridge, ip).ask(&wrong(&post(&call(1)))).status == 401),
        ("token request", |gateway, ip| {
            let form = "grant_type=client_credentials&client_id=alpha&client_secret=guess";
            let head =
                "POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n";
            let request = format!("{head}Content-Length: {}\r\n\r\n{form}", form.len());
            from(gateway.bridge, ip).ask(request.as_bytes()).status == 401
        }),
        ("sse", |gateway, ip| {
            let request = b"GET /sse?token=guess HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
            from(gateway.bridge, ip).ask(request).status == 401
        }),
        ("upgrade", |gateway, ip| {
            let request = blackbox::upgrade_request("/ws", "Sec-WebSocket-Protocol: mcp, bearer.guess\r\n");
            from(gateway.bridge, ip).ask(&request).status == 401
        }),
        ("websocket", |gateway, ip| {
            let mut client = from(gateway.bridge, ip);
            client.send(&blackbox::upgrade_request("/ws", ""));
            if client.head().status != 101 {
                return false;
            }
            let mut peer = Peer::on(client);
            let answer = peer.ask(&authenticate("1", "guess"));
            peer.closes(1008, "Authentication failed");
            answer["error"]["message"] == "Authentication failed"
        }),
        ("tcp", |gateway, ip| {
            let mut client = from(gateway.tcp, ip);
            client.try_send(format!("{}\n", authenticate("1", "guess")).as_bytes());
            client.line().is_some_and(|line| line.contains("Authentication failed"))
        }),
        ("a JWT", |gateway, ip| {
            let request = String::from_utf8(post(&call(1))).unwrap().replace(TOKEN, "eyJhbGciOiJub25lIn0.e30.AA");
            from(gateway.bridge, ip).ask(request.as_bytes()).status == 401
        }),
    ];
    for (number, (door, guess)) in (20..).zip(guesses) {
        let ip = format!("127.0.0.{number}");
        for time in 0..10 {
            assert!(guess(&gateway, &ip), "{door}: guess {time}");
        }
        assert!(!guess(&gateway, &ip), "{door}: the eleventh is not looked at");
        let expected = b"{\"error\":\"Forbidden\"}\n";
        assert_eq!(told(gateway.tcp, &ip), expected, "{door}");
    }
    assert_eq!(gateway.metric_of("ringwall_blocks_made_total", "kind=\"lockout\"") as usize, guesses.len());
    // Each failure was one, and no more were looked at.
    until("all lines", || gateway.trail().iter().filter(|line| line["event"] == "invalid_auth").count() == 70);
}

#[test]
fn an_operators_block_ends_what_is_open_and_refuses_what_comes() {
    let upstream = Upstream::start(|request, conversation| {
        if request.text().contains("\"hold\"") {
            conversation.wait_for("released");
        }
        conversation.echo(request)
    });
    let gateway = Gateway::start(&[OPERATORS], upstream.address).ready();
    let mut http = from(gateway.bridge, CLIENT);
    assert_eq!(http.ask(&post(&call(1))).status, 200);
    let mut websocket = {
        let mut client = from(gateway.bridge, CLIENT);
        client.send(&blackbox::upgrade_request("/ws", &format!("Authorization: Bearer {TOKEN}\r\n")));
        assert_eq!(client.head().status, 101);
        Peer::on(client)
    };
    let mut tcp = from(gateway.tcp, CLIENT);
    tcp.send(format!("{}\n", authenticate("1", TOKEN)).as_bytes());
    assert!(tcp.line().unwrap().contains("true"));
    let mut health = from(gateway.health, CLIENT);
    assert_eq!(health.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    let mut other = gateway.client();
    assert_eq!(other.ask(&post(&call(2))).status, 200);

    let answer = block(&gateway, &format!("{{\"network\":\"{CLIENT}/31\",\"reason\":\"tests\"}}"));
    assert_eq!((answer.status, &answer.json()["network"]), (201, &"127.0.0.8/31".into()));
    assert!(http.is_closed());
    assert!(matches!(websocket.frame(), Frame::Close(1008, _)));
    assert!(tcp.is_closed());
    assert!(health.is_closed());
    gateway.audited("connection_closed", |line| line["details"] == "address blocked");
    // What comes is refused without having been read, on every listener.
    let refused = from(gateway.bridge, CLIENT).response();
    assert_eq!((refused.status, refused.text().as_str()), (403, "{\"error\":\"Forbidden\"}"));
    assert_eq!(told(gateway.tcp, CLIENT), b"{\"error\":\"Forbidden\"}\n");
    let refused = from(gateway.health, CLIENT).response();
    assert_eq!((refused.status, refused.text().as_str()), (403, "{\"error\":\"Forbidden\"}"));
    let refused = from(gateway.admin, CLIENT).response();
    assert_eq!((refused.status, &refused.json()["code"]), (403, &"blocked".into()));
    assert_eq!(other.ask(&post(&call(3))).status, 200, "others are not concerned");

    let outcome = ringwall(&gateway, &["block", "lift", "127.0.0.8/31"]);
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!(from(gateway.bridge, CLIENT).ask(&post(&call(4))).status, 200);
    drop(other);
    gateway.unharmed();
}

#[test]
fn a_client_behind_a_proxy_is_blocked_and_not_its_proxy() {
    let proxies = ("TRUSTED_PROXIES", "127.0.0.2");
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[TEN, OPERATORS, proxies], upstream.address).ready();
    let as_client = |request: &[u8], lines: &str| {
        let text = String::from_utf8(request.to_vec()).unwrap();
        text.replacen("\r\n", &format!("\r\n{lines}"), 1).into_bytes()
    };
    let (guesser, honest) = ("X-Forwarded-For: 203.0.113.9\r\n", "X-Forwarded-For: 203.0.113.10\r\n");
    let mut proxy = from(gateway.bridge, "127.0.0.2");
    for _ in 0..10 {
        assert_eq!(proxy.ask(&as_client(&wrong(&post(&call(1))), guesser)).status, 401);
    }
    is_locked_out(&proxy.ask(&as_client(&post(&call(1)), guesser)));
    assert_eq!(proxy.ask(&as_client(&post(&call(2)), honest)).status, 200, "over the same connection");
    let mut header = from(gateway.bridge, "127.0.0.2");
    header.send(b"PROXY TCP4 203.0.113.9 127.0.0.1 5555 80\r\n");
    is_locked_out(&header.response());
    // A proxy that names nobody is not locked out for everybody.
    for _ in 0..30 {
        assert_eq!(proxy.ask(&wrong(&post(&call(1)))).status, 401);
    }
    assert_eq!(proxy.ask(&post(&call(3))).status, 200);
    // Nor is somebody whom an untrusted peer names.
    let mut liar = from(gateway.bridge, CLIENT);
    for _ in 0..10 {
        assert_eq!(liar.ask(&as_client(&wrong(&post(&call(1))), honest)).status, 401);
    }
    is_locked_out(&liar.ask(&as_client(&post(&call(1)), honest)));
    assert_eq!(proxy.ask(&as_client(&post(&call(4)), honest)).status, 200);
    // A WebSocket that came through the proxy is its client's.
    let (client, response) = {
        let mut client = from(gateway.bridge, "127.0.0.2");
        client.send(&blackbox::upgrade_request("/ws", &format!("Authorization: Bearer {TOKEN}\r\n{honest}")));
        let head = client.head();
        (client, head)
    };
    assert_eq!(response.status, 101);
    let mut websocket = Peer::on(client);
    assert_eq!(block(&gateway, "{\"network\":\"203.0.113.10\"}").status, 201);
    assert!(matches!(websocket.frame(), Frame::Close(1008, _)));
    assert_eq!(proxy.ask(&as_client(&post(&call(5)), honest)).status, 403);
    assert_eq!(proxy.ask(&post(&call(6))).status, 200, "the proxy's connection lives");
}

#[test]
fn guessing_at_a_door_keeps_no_operator_out_and_the_other_way_round() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[TEN, OPERATORS], upstream.address).ready();
    let mut client = gateway.client();
    (0..10).for_each(|_| assert_eq!(client.ask(&wrong(&post(&call(1)))).status, 401));
    is_locked_out(&gateway.client().response());
    assert_eq!(blocks(&gateway).len(), 1, "the admin port is open to the address all the same");
    assert_eq!(Client::connect(gateway.health).ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    assert_eq!(lift(&gateway, "127.0.0.1").status, 200);
    assert_eq!(gateway.post(&call(2)).status, 200);

    let guess = format!(
        "GET /admin/settings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    for _ in 0..10 {
        assert_eq!(Client::connect(gateway.admin).ask(guess.as_bytes()).status, 401);
    }
    let refused = Client::connect(gateway.admin).response();
    assert_eq!((refused.status, &refused.json()["code"]), (429, &"locked_out".into()));
    assert_eq!(gateway.post(&call(3)).status, 200, "the doors are open to the address all the same");
}

#[test]
fn who_does_not_stand_apart_is_kept_out_of_the_control_listeners_as_well() {
    let upstream = Upstream::echo();
    let networks = "{\"network\":\"127.0.0.64/26\"}";
    let gateway = Gateway::start(&[TEN, OPERATORS, ("IP_DENYLIST", "127.0.0.66")], upstream.address).ready();
    for listener in [gateway.health, gateway.admin] {
        assert_eq!(from(listener, "127.0.0.66").response().status, 403, "the deny list");
        assert_eq!(from(listener, "127.0.0.67").ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    }
    assert_eq!(told(gateway.tcp, "127.0.0.66"), b"{\"error\":\"Forbidden\"}\n");
    assert_eq!(from(gateway.bridge, "127.0.0.66").response().status, 403);
    assert_eq!(block(&gateway, networks).status, 201);
    for listener in [gateway.health, gateway.admin] {
        assert_eq!(from(listener, "127.0.0.67").response().status, 403);
    }
    gateway.audited("blocked_connection", |line| line["rule"] == "ip-denylist");
    gateway.audited("blocked_connection", |line| line["rule"] == "operator");
}

#[test]
fn a_restart_keeps_blocks_and_an_end_is_an_end() {
    let upstream = Upstream::echo();
    let mut gateway = Gateway::start(&[TEN, OPERATORS], upstream.address).ready();
    assert_eq!(block(&gateway, "{\"network\":\"127.0.0.40\",\"reason\":\"for ever\"}").status, 201);
    assert_eq!(block(&gateway, "{\"network\":\"127.0.0.41\"}").status, 201);
    let mut client = from(gateway.bridge, CLIENT);
    (0..10).for_each(|_| assert_eq!(client.ask(&wrong(&post(&call(1)))).status, 401));
    // What an operator was answered is on disk. An automatic one is soon after; its line in the trail is not later than that.
    gateway.audited("lockout", |_| true);
    until("it is on disk", || {
        let copy = gateway.folder().join("copy.db");
        let copied = gateway.command(&["backup", copy.to_str().unwrap(), "--force"]).status.success();
        copied && String::from_utf8_lossy(&std::fs::read(&copy).unwrap()).contains("127.0.0.9/32")
    });
    assert_eq!(lift(&gateway, "127.0.0.41").status, 200);
    gateway.signal(rustix::process::Signal::KILL);
    gateway.exit();
    let gateway = gateway.again(&[TEN, OPERATORS]).ready();
    let kept: Vec<_> = blocks(&gateway).iter().map(|block| block["network"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kept, [CLIENT, "127.0.0.40"]);
    is_locked_out(&from(gateway.bridge, CLIENT).response());
    assert_eq!(from(gateway.bridge, "127.0.0.40").response().status, 403);
    assert_eq!(from(gateway.bridge, "127.0.0.41").ask(&post(&call(1))).status, 200, "what was lifted stays lifted");
    // It ends by itself: the operator's second thoughts are shorter.
    assert_eq!(block(&gateway, &format!("{{\"network\":\"{CLIENT}\",\"expiresInSeconds\":1}}")).status, 201);
    until("its end", || is_served(&gateway));
    until("it to be cleared away", || blocks(&gateway).len() == 1);
}

#[test]
fn a_lockout_ends_by_itself() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[TEN, ("BLOCK_DURATION", "1500")], upstream.address).ready();
    let mut client = from(gateway.bridge, CLIENT);
    (0..10).for_each(|_| assert_eq!(client.ask(&wrong(&post(&call(1)))).status, 401));
    until("its end", || is_served(&gateway));
    gateway.audited("lockout", |_| true);
}

#[test]
fn a_flood_of_a_blocked_client_leaves_a_line_a_second() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("IP_DENYLIST", CLIENT)], upstream.address).ready();
    let start = std::time::Instant::now();
    for _ in 0..2_000 {
        assert_eq!(told(gateway.tcp, CLIENT), b"{\"error\":\"Forbidden\"}\n");
    }
    let seconds = start.elapsed().as_secs() + 2;
    let attempts = |gateway: &Gateway| {
        let lines = gateway.trail().into_iter().filter(|line| line["event"] == "blocked_connection");
        lines
            .map(|line| {
                let details = line["details"].as_str().unwrap().to_owned();
                assert!(details.starts_with("BLOCKED"), "{details}");
                details.split(' ').nth(1).map_or(1, |count| count.parse::<u64>().unwrap())
            })
            .collect::<Vec<_>>()
    };
    until("all to be counted", || attempts(&gateway).iter().sum::<u64>() == 2_000);
    // Two workers, each with a line at once and one a second.
    let lines = attempts(&gateway).len() as u64;
    assert!(lines <= 2 * (seconds + 1), "{lines} lines in {seconds} s");
    assert_eq!(gateway.metric("ringwall_blocked_attempts_total") as u64, 2_000);
}

#[test]
fn the_command_line_blocks_lists_and_lifts() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[OPERATORS], upstream.address).ready();
    let run = |arguments: &[&str]| {
        let output = ringwall(&gateway, arguments);
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    };
    let (done, text) = run(&["block", "add", "203.0.113.0/24", "--reason", "scans", "--for", "1h"]);
    assert!(done && text.starts_with("203.0.113.0/24 is blocked until 20"), "{text}");
    let (done, text) = run(&["block", "add", "2001:db8::7"]);
    assert!(done && text == "2001:db8::7 is blocked until it is lifted\n", "{text}");
    let (done, text) = run(&["block", "list"]);
    assert!(done && text.lines().count() == 3 && text.contains("scans"), "{text}");
    let (done, text) = run(&["block", "list", "--json", "--kind", "operator"]);
    assert!(done);
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(listed["blocks"][1]["network"], "2001:db8::7");
    let (done, text) = run(&["block", "lift", "203.0.113.0/24"]);
    assert!(done && text == "203.0.113.0/24 is not blocked any more\n", "{text}");
    for arguments in
        [&["block", "lift", "203.0.113.0/24"][..], &["block", "add", "127.0.0.0/8"], &["block", "add", "nobody"]]
    {
        let (done, text) = run(arguments);
        assert!(!done && text.starts_with("ringwall block: "), "{text}");
    }
}

#[test]
fn a_blocked_websocket_upgrade_is_no_way_round() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[TEN, OPERATORS], upstream.address).ready();
    // Connections that stood before the lockout may not go on guessing over them.
    let mut waiting: Vec<Client> = (0..3).map(|_| from(gateway.tcp, CLIENT)).collect();
    for client in &mut waiting {
        // Until it is answered it may wait in the listener's queue.
        client.send(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n");
        assert!(client.line().unwrap().contains("Authentication required"));
    }
    let mut client = from(gateway.bridge, CLIENT);
    (0..10).for_each(|_| assert_eq!(client.ask(&wrong(&post(&call(1)))).status, 401));
    for client in &mut waiting {
        // With the right token: it is not looked at, and the connection ends.
        client.try_send(format!("{}\n", authenticate("1", TOKEN)).as_bytes());
        assert!(client.is_closed());
    }
    let (_, response) = upgrade(&gateway, "/ws", &format!("Authorization: Bearer {TOKEN}\r\n"));
    assert_eq!(response.status, 101, "another address");
    let closes = gateway.trail();
    assert!(closes.iter().all(|line| line["event"] != "auth_success" || line["ip"] != gateway.pseudonym(CLIENT)));
}
