//! Promise: what an upstream is shown comes from the vault alone, is in force on all workers as soon as it is stored, and can be read from nowhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;
#[path = "support/socket_server.rs"]
mod socket_server;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use blackbox::{Client, Gateway, Peer, Response, TOKEN, Upstream, call, modern, post, stateless, until};
use rustix::process::Signal;
use serde_json::Value;
use socket_server::{Kind, SocketServer};

const ADMIN: &str = "orchestrator-token-of-the-vault-tests-0123456789";
const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const NEW_KEY: &str = "0202020202020202020202020202020202020202020202020202020202020202";
const SECRET: &str = "s3cr3t-of-the-provider";

fn gateway(policy: &str) -> Gateway {
    let settings = [
        ("ORCHESTRATOR_SECURITY_TOKEN", ADMIN),
        ("CREDENTIALS_ENCRYPTION_KEY", KEY),
        // Several connections meet several workers.
        ("WORKERS", "4"),
    ];
    Gateway::with_policy(&settings, policy).ready()
}

/// `ringwall vault …` beside a gateway, as an operator runs it.
fn vault(gateway: &Gateway, key: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringwall"))
        .arg("vault")
        .args(arguments)
        .current_dir(gateway.folder())
        .env_clear()
        .env("ADMIN_PORT", gateway.admin.port().to_string())
        .env("ORCHESTRATOR_SECURITY_TOKEN", ADMIN)
        .env("CREDENTIALS_ENCRYPTION_KEY", key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn admin(gateway: &Gateway, method: &str, path: &str, body: &str) -> Response {
    let mut client = Client::connect(gateway.admin);
    client.ask(
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )
}

/// What each connection of the gateway gets as an answer to a call; many connections reach all workers.
fn on_all_workers(gateway: &Gateway) -> Vec<Response> {
    (0..16).map(|id| gateway.client().ask(&post(&call(id)))).collect()
}

#[test]
fn a_call_carries_the_credential_and_nothing_of_the_client_s() {
    let server = Upstream::echo();
    for (how, sent, name, expected) in [
        ("", SECRET, "authorization", format!("Bearer {SECRET}")),
        ("credential_as = \"basic\"\n", "AC1:pass", "authorization", "Basic QUMxOnBhc3M=".to_owned()),
        ("credential_as = { header = \"X-Api-Key\" }\n", SECRET, "x-api-key", SECRET.to_owned()),
    ] {
        let gateway =
            gateway(&format!("[upstream.up]\nurl = \"http://{}/mcp\"\ncredential = \"twilio\"\n{how}", server.address));
        // What cannot be decided is denied: nothing is sent.
        server.take_requests();
        for response in on_all_workers(&gateway) {
            assert_eq!(response.status, 503, "{response:?}");
            let answer = response.json();
            assert_eq!(answer["error"]["code"], -32001, "{answer}");
            let text = answer["error"]["message"].as_str().unwrap();
            assert!(text.contains("no credential") && text.ends_with("the call was not made"), "{text}");
        }
        let refused = Peer::tcp(&gateway).ask(&stateless(1, "tools/list", ""));
        assert!(refused["error"]["message"].as_str().unwrap().contains("no credential"), "{refused}");
        assert!(server.take_requests().is_empty());

        done(&vault(&gateway, KEY, &["put", "twilio"], &format!("{sent}\n")));
        for response in on_all_workers(&gateway) {
            assert_eq!(response.status, 200, "{response:?}");
        }
        // A client's own header of that name goes no further.
        let own = String::from_utf8(modern(7, "tools/list", None, "")).unwrap().replacen(
            "\r\n",
            "\r\nX-Api-Key: the-client-s\r\n",
            1,
        );
        assert_eq!(gateway.client().ask(own.as_bytes()).status, 200);
        Peer::websocket(&gateway).ask(&stateless(1, "tools/list", ""));
        for request in server.take_requests() {
            assert_eq!(request.field(name).as_deref(), Some(expected.as_str()), "{how}");
            assert!(!request.text().contains(TOKEN));
            if name == "x-api-key" {
                assert_eq!(request.field("authorization"), None);
            }
        }

        // Another one, and none.
        done(&vault(&gateway, KEY, &["put", "twilio"], "other:one"));
        on_all_workers(&gateway);
        assert!(server.take_requests().iter().all(|request| request.field(name).unwrap() != expected));
        done(&vault(&gateway, KEY, &["delete", "twilio"], ""));
        assert!(on_all_workers(&gateway).iter().all(|response| response.status == 503));
        assert!(server.take_requests().is_empty());
        gateway.unharmed();
    }
}

#[test]
fn of_several_upstreams_each_is_shown_its_own_and_one_that_lacks_it_takes_nothing_of_the_others() {
    let (a, b) = (Upstream::echo(), Upstream::echo());
    let policy = format!(
        "[upstream.a]\nurl = \"http://{}/mcp\"\ncredential = \"of-a\"\n[upstream.b]\nurl = \"http://{}/mcp\"\n",
        a.address, b.address
    );
    let gateway = gateway(&policy);
    assert_eq!(gateway.client().ask(&modern(1, "tools/list", None, "")).status, 200);
    assert!(a.requests().is_empty(), "nothing goes there without its credential");
    assert!(!b.take_requests().is_empty());
    done(&vault(&gateway, KEY, &["put", "of-a"], SECRET));
    assert_eq!(gateway.client().ask(&modern(2, "tools/list", None, "")).status, 200);
    assert_eq!(a.last().field("authorization").unwrap(), format!("Bearer {SECRET}"));
    assert_eq!(b.last().field("authorization"), None, "what is one upstream's is not another's");
}

#[test]
fn a_websocket_is_opened_with_it() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::Ws, Kind::Wss] {
        let server = SocketServer::start(kind);
        let path = folder.path().join("server.pem");
        std::fs::write(&path, &server.certificate).unwrap();
        let policy = server.policy("up").replace("\"up.pem\"", &format!("\"{}\"", path.display()));
        let gateway = gateway(&format!("{policy}credential = \"ws\"\n"));
        // The door that carries messages goes by a link of the worker's own, the HTTP door by the broker.
        let mut peer = Peer::tcp(&gateway);
        assert!(peer.ask(&stateless(1, "tools/list", ""))["error"].is_object());
        assert!(server.heads().is_empty(), "no handshake without it");
        done(&vault(&gateway, KEY, &["put", "ws"], SECRET));
        until("a connection", || peer.ask(&stateless(2, "tools/list", ""))["result"].is_object());
        until("another", || gateway.client().ask(&modern(3, "tools/list", None, "")).status == 200);
        let heads = server.heads();
        assert!(!heads.is_empty());
        for head in heads {
            assert!(head.contains(&format!("Authorization: Bearer {SECRET}\r\n")), "{head}");
        }
    }
}

#[test]
fn nothing_tells_what_a_credential_is() {
    let server = Upstream::echo();
    let gateway =
        gateway(&format!("[upstream.up]\nurl = \"http://{}/mcp\"\ncredential = \"twilio\"\n", server.address));
    let mut told = vec![done(&vault(&gateway, KEY, &["put", "twilio"], SECRET))];
    told.push(done(&vault(&gateway, KEY, &["list"], "")));
    assert!(told[1].contains("twilio") && told[1].contains("up"), "{}", told[1]);
    told.push(admin(&gateway, "GET", "/admin/providers", "").text());
    told.push(admin(&gateway, "GET", "/admin/settings", "").text());
    for (method, path, body, status) in [
        ("PUT", "/admin/providers/twilio", format!("{{\"credential\":\"{SECRET}\\u0000\"}}"), 422),
        ("PUT", "/admin/providers/twilio", format!("{{\"credential\":\"{SECRET} x\"}}"), 409),
        ("PUT", "/admin/providers/twilio", format!("{{\"credential\":[\"{SECRET}\"]}}"), 400),
        ("PUT", "/admin/providers/twilio", format!("{{\"{SECRET}\":1}}"), 400),
        ("PUT", "/admin/providers/twilio", SECRET.to_owned(), 400),
        ("PUT", "/admin/providers/.x", format!("{{\"credential\":\"{SECRET}\"}}"), 422),
        ("PUT", "/admin/providers/twilio", "x".repeat(70_000), 413),
        ("POST", "/admin/vault/rotate", format!("{{\"key\":\"{SECRET}\"}}"), 400),
        ("DELETE", "/admin/providers/unknown", String::new(), 404),
        ("GET", "/admin/providers?limit=0", String::new(), 400),
        ("POST", "/admin/providers", String::new(), 405),
    ] {
        let response = admin(&gateway, method, path, &body);
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        assert_eq!(response.field("content-type").as_deref(), Some("application/problem+json"), "{method} {path}");
        told.push(response.text());
    }
    let refused = vault(&gateway, KEY, &["put", "twilio"], &format!("{SECRET}\nsecond line\n"));
    assert_eq!(refused.status.code(), Some(1));
    told.push(String::from_utf8(refused.stderr).unwrap());
    // It was not changed by any of these.
    assert_eq!(gateway.post(&call(1)).status, 200);
    assert_eq!(server.last().field("authorization").unwrap(), format!("Bearer {SECRET}"));
    gateway.audited("config_reloaded", |line| {
        line["rule"] == "vault" && line["details"] == "credential twilio: revision 1 stored"
    });
    told.push(gateway.log());
    told.push(gateway.trail().iter().map(Value::to_string).collect());
    for text in told {
        assert!(!text.contains(SECRET), "{text}");
    }
    let data = gateway.folder().join("ringwall-data");
    for file in std::fs::read_dir(data).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(memchr::memmem::find(&bytes, SECRET.as_bytes()).is_none(), "{}", file.display());
    }
}

#[test]
fn a_key_is_changed_while_calls_go_on() {
    let server = Upstream::echo();
    let gateway =
        gateway(&format!("[upstream.up]\nurl = \"http://{}/mcp\"\ncredential = \"twilio\"\n", server.address));
    done(&vault(&gateway, KEY, &["put", "twilio"], SECRET));
    let before = admin(&gateway, "GET", "/admin/providers", "").json();
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| {
            let mut client = gateway.client();
            (0..200).all(|id| client.ask(&post(&call(id))).status == 200)
        });
        assert!(done(&vault(&gateway, NEW_KEY, &["rotate"], "")).contains("sealed anew: 1"));
        assert!(calling.join().unwrap(), "every call was carried out");
    });
    let after = admin(&gateway, "GET", "/admin/providers", "").json();
    assert_ne!(before["key"], after["key"]);
    assert_eq!(after["providers"][0]["key"], after["key"]);
    assert!(
        server.requests().iter().all(|request| request.field("authorization").unwrap() == format!("Bearer {SECRET}"))
    );
}

/// What `ringwall check` warns of, of the upstreams' credentials.
fn warned(gateway: &Gateway, key: &str) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwall"));
    command.args(["check", "--json"]).current_dir(gateway.folder()).env_clear();
    let output = command.env("CREDENTIALS_ENCRYPTION_KEY", key).output().unwrap();
    let told: Value = serde_json::from_str(&done(&output)).unwrap();
    let warnings = told["warnings"].as_array().unwrap().iter();
    let warnings = warnings.filter(|warning| warning["name"].as_str().unwrap().ends_with(".credential"));
    warnings.map(|warning| format!("{}: {}", warning["name"], warning["text"])).collect()
}

#[test]
fn a_check_says_which_credentials_the_vault_cannot_give() {
    let server = Upstream::echo();
    let url = format!("http://{}/mcp", server.address);
    let policy = format!(
        "[upstream.a]\nurl = \"{url}\"\ncredential = \"of-a\"\n[upstream.b]\nurl = \"{url}\"\ncredential = \"of-b\"\n\
         [upstream.c]\nurl = \"{url}\"\n"
    );
    let mut gateway = gateway(&policy);
    done(&vault(&gateway, KEY, &["put", "of-a"], SECRET));
    let missing = "\"upstream.b.credential\": \"the vault does not hold it, so every call to this upstream is refused; \
                   run `ringwall vault put of-b`\"";
    assert_eq!(warned(&gateway, KEY), [missing], "beside the running gateway");
    let other = warned(&gateway, NEW_KEY);
    assert!(other.len() == 2 && other[0].contains("sealed under another key"), "{other:?}");
    let locked = warned(&gateway, "");
    assert!(locked.len() == 2 && locked.iter().all(|text| text.contains("CREDENTIALS_ENCRYPTION_KEY")), "{locked:?}");
    done(&vault(&gateway, KEY, &["put", "of-b"], SECRET));
    assert!(warned(&gateway, KEY).is_empty());
    gateway.signal(Signal::TERM);
    gateway.exit();
    assert!(warned(&gateway, KEY).is_empty(), "and without one");
    std::fs::remove_dir_all(gateway.folder().join("ringwall-data")).unwrap();
    assert!(warned(&gateway, KEY).is_empty(), "where there is no database, nothing is known");
}

#[test]
fn without_a_key_it_is_locked() {
    let server = Upstream::echo();
    let policy = format!("[upstream.up]\nurl = \"http://{}/mcp\"\ncredential = \"twilio\"\n", server.address);
    let gateway = Gateway::with_policy(&[("ORCHESTRATOR_SECURITY_TOKEN", ADMIN)], &policy).ready();
    for (method, path, body) in [
        ("GET", "/admin/providers", ""),
        ("PUT", "/admin/providers/twilio", "{\"credential\":\"x\"}"),
        ("DELETE", "/admin/providers/twilio", ""),
        ("POST", "/admin/vault/rotate", "{}"),
    ] {
        let response = admin(&gateway, method, path, body);
        assert_eq!((response.status, response.json()["code"].as_str()), (503, Some("vault_locked")), "{method} {path}");
    }
    let refused = vault(&gateway, KEY, &["put", "twilio"], SECRET);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("the vault is locked"));
    assert_eq!(gateway.post(&call(1)).status, 503);
    assert!(server.requests().is_empty());
}
