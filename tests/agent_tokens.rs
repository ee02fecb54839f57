//! Promise: an agent's token that was issued works on every door at once, and one that was revoked or has ended works nowhere and keeps no
//! connection; both outlive the process, however it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test waits for other processes")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::process::{Command, Output};

use blackbox::{
    Client, Gateway, Next, Peer, Response, TOKEN, Upstream, authenticate, call, initialize, post, until, upgrade,
};
use rustix::process::Signal;
use serde_json::Value;

const OPERATOR: &str = "orchestrator-token-of-32-characters";
const SETTINGS: &[(&str, &str)] = &[("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR)];

fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwall"));
    command.args(arguments).current_dir(gateway.folder()).env_clear();
    command.env("ADMIN_PORT", gateway.admin.port().to_string());
    command.env("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR);
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A fresh token of an agent, and its id.
fn issue(gateway: &Gateway, agent: &str) -> (String, String) {
    let output = run(gateway, &["token", "issue", agent]);
    (out(&output).trim().to_owned(), id(&output))
}

/// The id that is named beside a fresh token.
fn id(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).split(' ').nth(1).unwrap().to_owned()
}

fn list(gateway: &Gateway, more: &[&str]) -> Vec<Value> {
    let told = out(&run(gateway, &[&["token", "list", "--json"], more].concat()));
    serde_json::from_str::<Value>(&told).unwrap()["tokens"].as_array().unwrap().clone()
}

fn as_agent(token: &str, message: &[u8]) -> Vec<u8> {
    String::from_utf8(message.to_vec()).unwrap().replace(TOKEN, token).into_bytes()
}

fn status(gateway: &Gateway, token: &str) -> Response {
    gateway.client().ask(&as_agent(token, &post(&call(1))))
}

/// An old SSE client's stream, and where to post.
fn stream(gateway: &Gateway, token: &str) -> (Client, String) {
    let mut client = gateway.client();
    let request = format!(
        "GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    client.send(request.as_bytes());
    assert_eq!(client.head().status, 200);
    let first = client.event();
    let path = first.strip_prefix("event: endpoint\ndata: ").unwrap().trim().to_owned();
    (client, path)
}

#[test]
fn a_revocation_ends_every_connection_of_the_token_and_no_other() {
    let upstream = Upstream::start(|request, conversation| {
        if String::from_utf8_lossy(&request.body).contains("\"id\":99") {
            conversation.wait_for("never said");
        }
        conversation.echo(request);
        Next::Close
    });
    let gateway = Gateway::start(SETTINGS, upstream.address).ready();
    let (goes, id) = issue(&gateway, "alpha");
    let (stays, _) = issue(&gateway, "alpha");
    assert_ne!(goes, stays);
    let mut idle = gateway.client();
    assert_eq!(idle.ask(&as_agent(&goes, &post(&call(1)))).status, 200);
    let mut busy = gateway.client();
    busy.send(&as_agent(&goes, &post(&call(99))));
    upstream.wait("the call", |log| log.requests.len() == 2);
    let (mut socket, mut lines) = (Peer::websocket_with(&gateway, &goes), Peer::tcp_with(&gateway, &goes));
    // Its first message tells who it is.
    let (client, _) = upgrade(&gateway, "/ws", "");
    let mut late = Peer::on(client);
    late.authenticate(&goes);
    let (mut events, _) = stream(&gateway, &goes);
    let mut kept = gateway.client();
    assert_eq!(kept.ask(&as_agent(&stays, &post(&call(1)))).status, 200);
    let (mut kept_socket, mut kept_lines) = (Peer::websocket_with(&gateway, &stays), Peer::tcp_with(&gateway, &stays));
    let (mut kept_events, kept_path) = stream(&gateway, &stays);
    // One that has shown both belongs to the last.
    let mut changed = Peer::tcp_with(&gateway, &goes);
    changed.authenticate(&stays);

    let told = out(&run(&gateway, &["token", "revoke", &id]));
    assert_eq!(told, format!("{id} of alpha is refused from now on\n"));
    assert_eq!(status(&gateway, &goes).status, 401, "at once");
    assert!(idle.is_closed(), "an idle one ends without a word");
    assert!(busy.is_closed(), "a call that does not end is cut");
    socket.closes(1008, "Closed by the gateway");
    late.closes(1008, "Closed by the gateway");
    assert!(lines.client.is_closed());
    assert_eq!(events.chunk(), Some(None), "a stream ends as HTTP ends one");
    assert!(events.is_closed());
    for door in ["ws", "tcp", "http"] {
        gateway.audited("connection_closed", |line| {
            line["details"] == "credential revoked" && line["clientId"].as_str().unwrap().starts_with(door)
        });
    }
    let details = format!("token {id}, from {}", gateway.pseudonym("127.0.0.1"));
    gateway.audited("token_revoked", |line| line["agentId"] == "alpha" && line["details"] == details);

    for peer in [&mut kept_socket, &mut kept_lines, &mut changed] {
        assert_eq!(peer.ask(&initialize())["id"], 0);
    }
    assert_eq!(kept.ask(&as_agent(&stays, &post(&call(1)))).status, 200);
    let posted = String::from_utf8(as_agent(&stays, &post(&initialize()))).unwrap().replace("/mcp", &kept_path);
    assert_eq!(gateway.client().ask(posted.as_bytes()).status, 202);
    assert!(kept_events.event().starts_with("event: message"));
    drop((idle, busy, socket, late, lines, events));
    upstream.say("never said");
}

#[test]
fn a_rotated_token_works_until_its_grace_is_over() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(SETTINGS, upstream.address).ready();
    let (old, old_id) = issue(&gateway, "alpha");
    let (mut stays_old, mut renews) = (Peer::websocket_with(&gateway, &old), Peer::tcp_with(&gateway, &old));
    let output = run(&gateway, &["token", "rotate", &old_id]);
    let (new, new_id) = (out(&output).trim().to_owned(), id(&output));
    assert!(new.starts_with("rw_agent_") && new != old);
    assert_eq!((status(&gateway, &old).status, status(&gateway, &new).status), (200, 200), "both, for a day");
    let again = run(&gateway, &["token", "rotate", &old_id]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("The token has ended, or was rotated before"), "{again:?}");
    // Who shows the new one in time need not go with the old one.
    renews.authenticate(&new);
    out(&run(&gateway, &["token", "revoke", &old_id]));
    stays_old.closes(1008, "Closed by the gateway");
    assert_eq!(renews.ask(&initialize())["id"], 0);
    // No grace: over at once.
    let newest = out(&run(&gateway, &["token", "rotate", &new_id, "--grace", "0"])).trim().to_owned();
    assert!(renews.client.is_closed());
    assert_eq!((status(&gateway, &new).status, status(&gateway, &newest).status), (401, 200));
}

#[test]
fn a_connection_ends_when_its_token_expires() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(SETTINGS, upstream.address).ready();
    // Long enough to come in with, on however slow a machine.
    for life in ["2s", "10s", "40s"] {
        let token = out(&run(&gateway, &["token", "issue", "alpha", "--expires-in", life]));
        let authorization = format!("Authorization: Bearer {}\r\n", token.trim());
        let (client, response) = upgrade(&gateway, "/ws", &authorization);
        if response.status == 101 {
            Peer::on(client).closes(1008, "Closed by the gateway");
            // Another worker's tick may be up to 50 ms behind the one that has closed it.
            until("the token to be refused by all workers", || {
                upgrade(&gateway, "/ws", &authorization).1.status == 401
            });
            return;
        }
    }
    panic!("no token lived long enough to be used");
}

#[test]
fn tokens_and_revocations_outlive_the_process() {
    let upstream = Upstream::echo();
    let mut gateway = Gateway::start(SETTINGS, upstream.address).ready();
    let (good, _) = issue(&gateway, "alpha");
    let (bad, bad_id) = issue(&gateway, "beta");
    out(&run(&gateway, &["token", "revoke", &bad_id]));
    gateway.signal(Signal::KILL);
    gateway.exit();
    let mut gateway = gateway.again(SETTINGS).ready();
    assert_eq!((status(&gateway, &good).status, status(&gateway, &bad).status), (200, 401));
    // A use is written down at the end, so that the next process knows of it.
    assert!(list(&gateway, &[])[0]["lastUsedAt"].is_string());
    gateway.signal(Signal::TERM);
    assert!(gateway.exit().success());
    let gateway = gateway.again(SETTINGS).ready();
    let tokens = list(&gateway, &["--all"]);
    assert_eq!(tokens.len(), 2);
    assert!(tokens[0]["lastUsedAt"].is_string(), "{tokens:?}");
    assert_eq!((&tokens[0]["state"], &tokens[1]["state"]), (&"valid".into(), &"revoked".into()));
}

#[test]
fn an_agent_that_the_policy_switches_off_is_refused_whatever_it_shows() {
    let upstream = Upstream::echo();
    let policy = format!(
        "[upstream.only]\nurl = \"http://{}/mcp\"\n[agent.off]\nenabled = false\n[agent.on]\n",
        upstream.address
    );
    let gateway = Gateway::with_policy(SETTINGS, &policy).ready();
    let ((off, _), (on, _)) = (issue(&gateway, "off"), issue(&gateway, "on"));
    assert_eq!((status(&gateway, &off).status, status(&gateway, &on).status), (401, 200));
    let mut peer = Peer::stranger(&gateway);
    assert_eq!(peer.ask(&authenticate("1", &off))["error"]["message"], "Authentication failed");
}

#[test]
fn the_command_line_says_what_it_did_and_what_it_could_not() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(SETTINGS, upstream.address).ready();
    let output = run(&gateway, &["token", "issue", "support-bot", "--label", "laptop", "--expires-in", "90d"]);
    let (token, id) = (out(&output), id(&output));
    assert!(token.starts_with("rw_agent_") && token.ends_with('\n') && token.len() == 53, "the token alone");
    assert!(!String::from_utf8_lossy(&output.stderr).contains(token.trim()), "{output:?}");
    assert_eq!(status(&gateway, token.trim()).status, 200);
    let table = out(&run(&gateway, &["token", "list", "--agent", "support-bot"]));
    let row = table.lines().nth(1).unwrap();
    assert!(row.starts_with(&format!("{id}  valid    support-bot ")) && row.ends_with("laptop"), "{table}");
    assert!(!row.contains("never"), "it was used, and it expires: {table}");
    assert!(list(&gateway, &["--agent", "nobody"]).is_empty());
    for (arguments, hint) in [
        (&["token", "revoke", "x"][..], "20 hexadecimal digits"),
        (&["token", "revoke", "0000000000000000ffff"], "There is no token with this id"),
        (&["token", "issue", "a b"], "1 to 128 letters, digits"),
        (&["token", "list", "--agent", "a&b"], "letters, digits"),
    ] {
        let output = run(&gateway, arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(hint), "{output:?}");
    }
    // An agent's token opens the doors and nothing else.
    let mut client = Client::connect(gateway.admin);
    let request = format!("GET /admin/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", token.trim());
    let response = client.ask(request.as_bytes());
    assert_eq!((response.status, &response.json()["detail"]), (403, &"Admin access required.".into()));
    // Nothing that was written holds it.
    for line in gateway.trail() {
        assert!(!line.to_string().contains(token.trim()), "{line}");
    }
    assert!(!gateway.log().contains(token.trim()));
    for entry in std::fs::read_dir(gateway.folder().join("ringwall-data")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(!bytes.windows(20).any(|window| window == &token.as_bytes()[..20]), "{}", path.display());
    }
}

#[test]
fn a_data_dir_has_one_gateway_and_any_number_of_copies() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(SETTINGS, upstream.address).ready();
    let (token, _) = issue(&gateway, "alpha");
    let told = out(&run(&gateway, &["backup", "copy.db"]));
    assert!(told.starts_with("copy.db: ") && told.trim().ends_with("bytes, checked"), "{told}");
    let again = run(&gateway, &["backup", "copy.db"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("or replace it with --force"), "{again:?}");
    out(&run(&gateway, &["backup", "copy.db", "--force"]));
    let mut second = Command::new(env!("CARGO_BIN_EXE_ringwall"));
    second.current_dir(gateway.folder()).env_clear();
    for port in ["MCP_BRIDGE_PORT", "MCP_TCP_PORT", "MCP_HEALTH_PORT", "ADMIN_PORT"] {
        second.env(port, "0");
    }
    let second = second.output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another ringwall process"), "{second:?}");
    // The copy is all that is needed.
    let home = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let data = home.path().join("ringwall-data");
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
    std::fs::copy(gateway.folder().join("copy.db"), data.join("ringwall.db")).unwrap();
    drop(gateway);
    let gateway = Gateway::start_in(home, SETTINGS, upstream.address).ready();
    assert_eq!(status(&gateway, &token).status, 200);
}
