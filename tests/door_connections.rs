//! Promise: the list of connections tells the truth while calls run, and closing one ends that one and no other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test waits for other processes")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use blackbox::{Client, Gateway, Next, Nobody, Upstream, call, post, until};
use serde_json::Value;

const OPERATOR: &str = "orchestrator-token-of-32-characters";
const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn start(settings: &[(&str, &str)], upstream: &Upstream) -> Gateway {
    let settings = [&[("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR)], settings].concat();
    Gateway::start(&settings, upstream.address).ready()
}

/// The program by another name, as an operator of this gateway would call it.
fn called(gateway: &Gateway, name: &str, arguments: &[&str], token: Option<&str>) -> Output {
    let path = gateway.folder().join(name);
    if !path.exists() {
        symlink(env!("CARGO_BIN_EXE_ringwall"), &path).unwrap();
    }
    let mut command = Command::new(path);
    command.args(arguments).current_dir(gateway.folder()).env_clear();
    command.env("ADMIN_PORT", gateway.admin.port().to_string());
    command.env("MCP_HEALTH_PORT", gateway.health.port().to_string());
    command.envs(token.map(|token| ("ORCHESTRATOR_SECURITY_TOKEN", token)));
    command.output().unwrap()
}

fn list(gateway: &Gateway, filter: &[&str]) -> Vec<Value> {
    let output = called(gateway, "ringwall", &[&["connections", "--json"], filter].concat(), Some(OPERATOR));
    assert!(output.status.success(), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["connections"].as_array().unwrap().clone()
}

/// The row of a client's connection.
fn row(gateway: &Gateway, client: &Client) -> Option<Value> {
    let own = client.stream.local_addr().unwrap().to_string();
    list(gateway, &[]).into_iter().find(|row| row["peer"] == own.as_str())
}

fn waiting_upstream() -> Upstream {
    Upstream::start(|request, conversation| {
        conversation.wait_for("answer");
        conversation.echo(request);
        Next::Close
    })
}

#[test]
fn the_list_is_true_while_calls_run() {
    let upstream = waiting_upstream();
    let gateway = start(&[], &upstream);
    let (mut idle, mut caller) = (gateway.client(), gateway.client());
    assert_eq!(idle.ask(HEALTH).status, 200);
    let message = post(&call(1));
    caller.send(&message);
    upstream.wait("the call", |log| log.requests.len() == 1);
    let before = row(&gateway, &caller).unwrap();
    assert_eq!(
        (&before["door"], &before["principal"], &before["client"]),
        (&"http".into(), &"door".into(), &"127.0.0.1".into())
    );
    assert_eq!((&before["messagesIn"], &before["messagesOut"]), (&1.into(), &0.into()));
    assert_eq!((&before["bytesIn"], &before["bytesOut"]), (&message.len().into(), &0.into()));
    let quiet = row(&gateway, &idle).unwrap();
    assert_eq!((&quiet["principal"], &quiet["bytesIn"]), (&"unknown".into(), &HEALTH.len().into()));
    upstream.say("answer");
    let answer = caller.response();
    assert_eq!(answer.status, 200);
    let length = answer.head.len() + answer.body.len();
    until("the answer to be counted", || row(&gateway, &caller).unwrap()["messagesOut"] == 1);
    assert_eq!(row(&gateway, &caller).unwrap()["bytesOut"], length);
    assert_eq!(list(&gateway, &["--door", "ws"]), Vec::<Value>::new());
    drop((idle, caller));
    until("an empty list", || list(&gateway, &[]).is_empty());
}

#[test]
fn closing_ends_the_chosen_connection_and_no_other() {
    let upstream = waiting_upstream();
    let gateway = start(&[], &upstream);
    let mut clients: Vec<Client> = (0..6).map(|_| gateway.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(HEALTH).status, 200);
    }
    let mut busy = gateway.client();
    busy.send(&post(&call(1)));
    upstream.wait("the call", |log| log.requests.len() == 1);
    let mut chosen = clients.swap_remove(3);
    let id = row(&gateway, &chosen).unwrap()["id"].as_str().unwrap().to_owned();
    let output = called(&gateway, "mcp-connections", &["close", &id], Some(OPERATOR));
    assert!(output.status.success(), "{output:?}");
    assert!(chosen.is_closed(), "an idle one ends without a word");
    let busy_id = row(&gateway, &busy).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(called(&gateway, "mcp-connections", &["close", &busy_id], Some(OPERATOR)).status.success());
    assert!(busy.is_closed(), "a call that does not end is cut");
    until("both to be gone", || list(&gateway, &[]).len() == clients.len());
    for client in &mut clients {
        assert_eq!(client.ask(HEALTH).status, 200, "the others go on");
    }
    let again = called(&gateway, "mcp-connections", &["close", &id], Some(OPERATOR));
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("No connection with this id is open"), "{again:?}");
    upstream.say("answer");
    until("the audit line", || {
        let output = called(&gateway, "mcp-security-audit", &["-n", "50", "--json"], None);
        String::from_utf8_lossy(&output.stdout).lines().any(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["event"] == "connection_closed"
                && line["clientId"] == format!("http-{id}")
                && line["details"] == format!("closed by an operator, from {}", gateway.pseudonym("127.0.0.1"))
        })
    });
}

#[test]
fn limits_are_the_lists() {
    let upstream = Upstream::echo();
    let gateway = start(&[("MAX_CONNECTIONS_PER_IP", "3")], &upstream);
    until("the gateway to be alone", || list(&gateway, &[]).is_empty());
    let held: Vec<Client> = (0..3).map(|_| gateway.client()).collect();
    until("three", || list(&gateway, &[]).len() == 3);
    assert_eq!(gateway.client().ask(HEALTH).status, 503);
    assert_eq!(list(&gateway, &[]).len(), 3);
    drop(held);
    until("room again", || gateway.client().ask(HEALTH).status == 200);
}

#[test]
fn names_and_what_goes_wrong() {
    let upstream = Upstream::echo();
    let gateway = start(&[], &upstream);
    let client = gateway.client();
    until("the connection", || row(&gateway, &client).is_some());
    let table = called(&gateway, "mcp-connections", &[], Some(OPERATOR));
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.starts_with("ID ") && text.contains(&client.stream.local_addr().unwrap().to_string()), "{text}");
    let health = called(&gateway, "mcp-health", &[], None);
    assert_eq!((health.status.success(), &*health.stdout), (true, &b"ready\n"[..]));
    until("a readable trail", || {
        let trail = called(&gateway, "mcp-security-audit", &[], None);
        String::from_utf8_lossy(&trail.stdout).contains("INFO      server_start")
    });
    for (token, hint) in [(None, "is not set"), (Some("another-orchestrator-token-of-32-characters"), "another one")] {
        let output = called(&gateway, "mcp-connections", &[], token);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(hint), "{output:?}");
    }
    let disabled = Gateway::start(&[], upstream.address).ready();
    let output = called(&disabled, "mcp-connections", &[], Some(OPERATOR));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no ORCHESTRATOR_SECURITY_TOKEN"), "{output:?}");
    drop(client);
    let nobody = Nobody::new();
    let output = Command::new(env!("CARGO_BIN_EXE_ringwall"))
        .arg("connections")
        .env("ADMIN_PORT", nobody.address.port().to_string())
        .env("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Is the gateway running?"), "{output:?}");
}
