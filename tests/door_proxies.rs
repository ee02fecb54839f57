//! Promise: what a proxy says of its client is believed when the proxy is listed in `TRUSTED_PROXIES`, and from nobody else; then it counts
//! everywhere: deny list, connections of one address, audit trail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::net::{IpAddr, SocketAddr};

use blackbox::{Client, Gateway, PATIENCE, Upstream, call, post, until};
use serde_json::Value;

const PROXY: &str = "127.0.0.2";
const STRANGER: &str = "127.0.0.1";
const TRUSTED: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.2,10.0.0.0/8");
const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn upstream() -> Upstream {
    Upstream::start(|request, conversation| conversation.echo(request))
}

/// A connection from this address of the loopback network.
fn from(gateway: &Gateway, ip: &str) -> Client {
    from_to(gateway.bridge, ip)
}

fn from_to(door: SocketAddr, ip: &str) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
    socket.connect_timeout(&door.into(), PATIENCE).expect("connect");
    Client::on(socket.into())
}

/// A version 1 header.
fn v1(source: &str) -> Vec<u8> {
    let family = if source.contains(':') { "TCP6" } else { "TCP4" };
    format!("PROXY {family} {source} {source} 54321 443\r\n").into_bytes()
}

/// A version 2 header, with an extension behind the addresses.
fn v2(source: &str) -> Vec<u8> {
    let (family, octets) = match source.parse().unwrap() {
        IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
        IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
    };
    let rest = [&octets[..], &octets, &[0xd4, 0x31, 0x01, 0xbb], &[4, 0, 1, 0]].concat();
    binary(0x21, family, &rest)
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family, 0, u8::try_from(rest.len()).unwrap()][..], rest].concat()
}

/// A call with these header lines.
fn call_with(id: usize, lines: &str) -> Vec<u8> {
    let bytes = String::from_utf8(post(&call(id))).unwrap();
    bytes.replacen("\r\n", &format!("\r\n{lines}"), 1).into_bytes()
}

/// The audit lines of one event.
fn audited(gateway: &Gateway, event: &str) -> Vec<Value> {
    let folder = gateway.folder().join("ringwall-data/security");
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap_or_default());
    let all: String = texts.collect();
    let lines = all.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let values = lines.filter_map(|line| serde_json::from_str(line.strip_prefix("[SECURITY] ")?).ok());
    values.filter(|line: &Value| line["event"] == event).collect()
}

/// Waits for the line of an event that says this.
fn wait_for(gateway: &Gateway, event: &str, says: impl Fn(&Value) -> bool) {
    until(event, || audited(gateway, event).iter().any(&says));
}

/// The pseudonym of an address that the audit trail has for a call.
fn recorded_ip(gateway: &Gateway, id: usize) -> String {
    let id = id.to_string();
    wait_for(gateway, "tool_call", |line| line["requestId"] == id.as_str());
    let lines = audited(gateway, "tool_call");
    lines.iter().find(|line| line["requestId"] == id.as_str()).unwrap()["ip"].as_str().unwrap().to_owned()
}

#[test]
fn a_header_of_a_trusted_proxy_names_the_client_of_the_whole_connection() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED], upstream.address);
    let cases = [
        (v1("203.0.113.9"), "203.0.113.9"),
        (v1("2001:db8::9"), "2001:db8::9"),
        (v1("::ffff:203.0.113.8"), "203.0.113.8"),
        (v2("203.0.113.10"), "203.0.113.10"),
        (v2("2001:db8::10"), "2001:db8::10"),
        // They name nobody.
        (b"PROXY UNKNOWN\r\n".to_vec(), PROXY),
        (binary(0x20, 0, b""), PROXY),
        (Vec::new(), PROXY),
    ];
    for (number, (header, ip)) in cases.iter().enumerate() {
        let mut client = from(&gateway, PROXY);
        let id = 10 * number + 1;
        assert_eq!(client.ask(&[&header[..], &post(&call(id))].concat()).status, 200, "{ip}");
        assert_eq!(client.ask(&post(&call(id + 1))).status, 200, "{ip}");
        assert_eq!(
            (recorded_ip(&gateway, id), recorded_ip(&gateway, id + 1)),
            (gateway.pseudonym(ip), gateway.pseudonym(ip))
        );
    }
    for event in ["connection_established", "auth_success", "connection_closed"] {
        wait_for(&gateway, event, |line| line["ip"] == gateway.pseudonym("2001:db8::10"));
    }
    gateway.unharmed();
}

#[test]
fn a_header_may_come_in_pieces_and_may_not_come_twice() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED], upstream.address);
    for (id, header) in [(1, v1("203.0.113.9")), (2, v2("203.0.113.9"))] {
        let mut client = from(&gateway, PROXY);
        for byte in &header {
            client.send(&[*byte]);
        }
        assert_eq!(client.ask(&post(&call(id))).status, 200);
        assert_eq!(recorded_ip(&gateway, id), gateway.pseudonym("203.0.113.9"));
        // In front of a later request, or behind the first header, it is what it is for everybody: no HTTP.
        assert_eq!(client.ask(&[&header[..], HEALTH].concat()).status, 400);
        let mut client = from(&gateway, PROXY);
        assert_eq!(client.ask(&[&header[..], &header, HEALTH].concat()).status, 400);
    }
    gateway.unharmed();
}

#[test]
fn from_an_untrusted_peer_nothing_is_believed() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED, ("IP_DENYLIST", "203.0.113.66")], upstream.address);
    for header in [v1("203.0.113.9"), v2("203.0.113.9"), v1(PROXY), v2("10.0.0.1")] {
        let mut client = from(&gateway, STRANGER);
        let response = client.ask(&[&header[..], &post(&call(1))].concat());
        assert_eq!(response.status, 400, "{}", header.escape_ascii());
        assert!(client.is_closed());
    }
    assert!(upstream.requests().is_empty());
    let mut client = from(&gateway, STRANGER);
    for (id, lies) in [
        (1, "X-Forwarded-For: 203.0.113.9\r\n"),
        (2, "X-Forwarded-For: 203.0.113.66\r\n"),
        (3, "X-Forwarded-For: 203.0.113.9, 10.0.0.1\r\nX-Forwarded-For: 127.0.0.2\r\n"),
        (4, "Forwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n"),
    ] {
        assert_eq!(client.ask(&call_with(id, lies)).status, 200, "{lies}");
        assert_eq!(recorded_ip(&gateway, id), gateway.pseudonym(STRANGER));
    }
    for event in ["invalid_input", "connection_established", "tool_call"] {
        assert!(audited(&gateway, event).iter().all(|line| line["ip"] == gateway.pseudonym(STRANGER)), "{event}");
    }
    drop(client);
    gateway.unharmed();
}

#[test]
fn each_request_of_a_trusted_proxy_has_the_client_that_its_list_names() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED], upstream.address);
    let mut client = from(&gateway, PROXY);
    for (id, lines, ip) in [
        (1, "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
        (2, "", PROXY),
        (3, "X-Forwarded-For: 127.0.0.1, 10.1.1.1, 203.0.113.10, 10.0.0.2\r\n", "203.0.113.10"),
        (
            4,
            "X-Forwarded-For: 127.0.0.1\r\nx-forwarded-for: [2001:db8::9]:443\r\nX-Forwarded-For: 10.0.0.2\r\n",
            "2001:db8::9",
        ),
        (5, "X-Forwarded-For: 203.0.113.9, unknown, 10.0.0.2\r\n", "10.0.0.2"),
        (6, "X-Forwarded-For: not an address\r\n", PROXY),
        // Others than this field say nothing.
        (7, "Forwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n", PROXY),
    ] {
        assert_eq!(client.ask(&call_with(id, lines)).status, 200, "{lines}");
        assert_eq!(recorded_ip(&gateway, id), gateway.pseudonym(ip), "{lines}");
    }
    drop(client);
    // Behind a header, whoever it names must be a proxy to speak for others.
    for (id, source, ip) in [(8, "10.0.0.7", "203.0.113.9"), (9, "198.51.100.7", "198.51.100.7")] {
        let mut client = from(&gateway, PROXY);
        client.send(&v1(source));
        assert_eq!(client.ask(&call_with(id, "X-Forwarded-For: 203.0.113.9\r\n")).status, 200);
        assert_eq!(recorded_ip(&gateway, id), gateway.pseudonym(ip));
    }
    // A head that cannot be read names nobody.
    let mut client = from(&gateway, PROXY);
    client.send(&v1("198.51.100.8"));
    assert_eq!(client.ask(b"GET /mcp\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n").status, 400);
    wait_for(&gateway, "invalid_input", |line| line["ip"] == gateway.pseudonym("198.51.100.8"));
    drop(client);
    gateway.unharmed();
}

#[test]
fn the_deny_list_asks_for_the_client_and_not_for_its_proxy() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED, ("IP_DENYLIST", "203.0.113.0/24,2001:db8::/32")], upstream.address);
    for header in [v1("203.0.113.9"), v2("203.0.113.9"), v1("::ffff:203.0.113.9"), v2("2001:db8::1")] {
        let mut client = from(&gateway, PROXY);
        let response = client.ask(&[&header[..], &post(&call(1))].concat());
        assert_eq!((response.status, response.text().as_str()), (403, "{\"error\":\"Forbidden\"}"));
        assert!(client.is_closed());
    }
    let mut client = from(&gateway, PROXY);
    for denied in ["203.0.113.9", "198.51.100.1, 203.0.113.9", "203.0.113.9, 10.0.0.2", "[2001:db8::1]:80"] {
        let response = client.ask(&call_with(1, &format!("X-Forwarded-For: {denied}\r\n")));
        assert_eq!((response.status, response.text().as_str()), (403, "{\"error\":\"Forbidden\"}"), "{denied}");
        // The next one over the same connection is another's.
        let served = client.ask(&call_with(2, "X-Forwarded-For: 203.0.113.9, 198.51.100.1\r\n"));
        assert_eq!(served.status, 200, "what stands left of the client is the client's invention");
    }
    let health = "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    assert_eq!(client.ask(health.as_bytes()).status, 403, "denied is denied");
    assert!(upstream.requests().iter().all(|request| request.id() == "2"));
    wait_for(&gateway, "blocked_connection", |line| {
        line["ip"] == gateway.pseudonym("203.0.113.9") && line["rule"] == "ip-denylist"
    });
    wait_for(&gateway, "blocked_connection", |line| line["ip"] == gateway.pseudonym("2001:db8::1"));
    drop(client);
    gateway.unharmed();
}

#[test]
fn connections_count_for_the_client_and_not_for_its_proxy() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED, ("MAX_CONNECTIONS_PER_IP", "2")], upstream.address);
    let through = |header: &[u8]| {
        let mut client = from(&gateway, PROXY);
        let status = client.ask(&[header, HEALTH].concat()).status;
        (client, status)
    };
    let (first, second) = (through(&v1("203.0.113.9")), through(&v2("203.0.113.9")));
    assert_eq!((first.1, second.1), (200, 200));
    assert_eq!(through(&v1("203.0.113.9")).1, 503);
    wait_for(&gateway, "connection_limit", |line| {
        line["ip"] == gateway.pseudonym("203.0.113.9") && line["rule"] == "ip-connections"
    });
    assert_eq!(through(&v1("203.0.113.10")).1, 200);
    // The same client, through the proxy and by itself.
    let _by_itself = [through(&v1(STRANGER)), through(&v1(STRANGER))];
    assert_eq!(from(&gateway, STRANGER).ask(HEALTH).status, 503);
    // A proxy that speaks for many.
    let many: Vec<_> = (0..6).map(|_| through(b"")).collect();
    assert!(many.iter().all(|(_, status)| *status == 200));
    drop(second);
    until("the place to be given back", || through(&v1("203.0.113.9")).1 == 200);
}

#[test]
fn a_proxy_is_held_to_the_doors_limit() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED, ("WS_MAX_CONNECTIONS", "3")], upstream.address);
    let open: Vec<Client> = (0..3).map(|_| from(&gateway, PROXY)).collect();
    // They have said nothing yet, and hold their places all the same.
    until("the door to be full", || from(&gateway, PROXY).ask(HEALTH).status == 503);
    drop(open);
    gateway.unharmed();
}

#[test]
fn the_tcp_door_takes_the_same_header() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED, ("IP_DENYLIST", "203.0.113.66")], upstream.address);
    let authenticate = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"authenticate\",\"params\":{{\"token\":\"{}\"}}}}\n",
        blackbox::TOKEN
    );
    for header in [v1("203.0.113.9"), v2("203.0.113.9")] {
        let mut client = from_to(gateway.tcp, PROXY);
        client.send(&[&header[..], authenticate.as_bytes()].concat());
        client.half_close();
        let answer = String::from_utf8(client.rest()).unwrap();
        assert!(answer.contains("\"authenticated\":true"), "{answer}");
    }
    wait_for(&gateway, "auth_success", |line| line["ip"] == gateway.pseudonym("203.0.113.9"));
    let mut client = from_to(gateway.tcp, PROXY);
    client.send(&[&v1("203.0.113.66")[..], authenticate.as_bytes()].concat());
    assert_eq!(client.rest(), b"{\"error\":\"Forbidden\"}\n");
    // From anyone else it is a line that is no message, and the client is who it is.
    let mut client = from_to(gateway.tcp, STRANGER);
    client.send(&[&v1("203.0.113.66")[..], authenticate.as_bytes()].concat());
    client.half_close();
    let answers = String::from_utf8(client.rest()).unwrap();
    assert!(answers.contains("-32700") && answers.contains("\"authenticated\":true"), "{answers}");
    wait_for(&gateway, "auth_success", |line| line["ip"] == gateway.pseudonym(STRANGER));
}

#[test]
fn a_broken_header_closes_and_is_recorded() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED], upstream.address);
    let long = format!("PROXY UNKNOWN {}", "x".repeat(500));
    let broken: [&[u8]; 6] = [
        b"PROXY TCP4 nonsense\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 1 99999\r\n",
        long.as_bytes(),
        &binary(0x21, 0x11, b"short"),
        &binary(0x25, 0x11, b""),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ];
    for header in broken {
        let mut client = from(&gateway, PROXY);
        client.try_send(&[header, HEALTH].concat());
        assert!(client.is_closed(), "{}", header.escape_ascii());
    }
    until("all to be recorded", || {
        let lines = audited(&gateway, "invalid_input");
        lines.iter().filter(|line| line["rule"] == "proxy-header" && line["ip"] == gateway.pseudonym(PROXY)).count()
            == broken.len()
    });
    until("all to be counted", || gateway.metric("ringwall_connections_refused_total") > 5.5);
    gateway.unharmed();
}

#[test]
fn a_header_that_does_not_come_to_its_end_is_cut() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED, ("HEADER_TIMEOUT", "300")], upstream.address);
    for start in [&b"PROXY TCP4 203.0"[..], b"P", b"\r\n\r\n\0\r\nQUIT\n\x21"] {
        let mut client = from(&gateway, PROXY);
        client.send(start);
        assert!(client.is_closed(), "{}", start.escape_ascii());
    }
    until("all to be recorded", || {
        let lines = audited(&gateway, "connection_timeout");
        lines.iter().filter(|line| line["rule"] == "proxy-header" && line["ip"] == gateway.pseudonym(PROXY)).count()
            == 3
    });
    gateway.unharmed();
}

#[test]
fn no_claim_about_the_client_goes_on_to_an_upstream() {
    let upstream = upstream();
    let gateway = Gateway::start(&[TRUSTED], upstream.address);
    let names = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "Forwarded",
        "X-Real-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "CF-Connecting-IPv6",
        "X-Client-IP",
        "Client-IP",
        "X-Remote-IP",
        "X-Remote-Addr",
        "X-Originating-IP",
        "X-Envoy-External-Address",
        "Fastly-Client-IP",
        "X-Cluster-Client-IP",
    ];
    let lines: String = names.iter().map(|name| format!("{name}: 203.0.113.9\r\n")).collect();
    for (id, peer) in [(1, PROXY), (2, STRANGER)] {
        assert_eq!(from(&gateway, peer).ask(&call_with(id, &lines)).status, 200);
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert!(!request.head.contains("203.0.113.9"), "{}", request.head);
    }
}

#[test]
fn a_proxys_silent_connections_do_not_hold_a_drain_up() {
    let upstream = upstream();
    let mut gateway = Gateway::start(&[TRUSTED, ("DRAIN_TIMEOUT", "60000")], upstream.address);
    let mut silent = from(&gateway, PROXY);
    assert_eq!(
        from(&gateway, PROXY).ask(HEALTH).status,
        200,
        "the one before has been accepted, or will be on its own"
    );
    gateway.signal(rustix::process::Signal::TERM);
    assert!(gateway.exit().success());
    assert!(silent.is_closed());
}
