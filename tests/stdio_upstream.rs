//! stdio upstreams with real processes: the sample server, and children that misbehave.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "a test may wait")]

use std::path::Path;
use std::time::{Duration, Instant};

use ringwall::upstream::brokered::{
    CallHandle, CallKind, ChildCall, ChildMessage, ChildSpec, ChildState, ChildrenHandle, Gone, Parts, ProgramSpec,
    Server, SessionId, SpawnFault, spawn,
};
use serde_json::{Value, json};

const VERSION: &str = "2025-11-25";
/// Generous: the machine may be busy. Nothing waits for it unless the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

fn sample() -> ChildSpec {
    let command = vec![env!("CARGO_BIN_EXE_ringwall").to_owned(), "sample-server".to_owned()];
    ChildSpec::new("sample", command)
}

fn program(spec: &mut ChildSpec) -> &mut ProgramSpec {
    match &mut spec.server {
        Server::Program(program) => program,
        Server::Socket(_) => panic!("no program"),
    }
}

fn shell(script: &str) -> ChildSpec {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let mut spec = ChildSpec::new("script", command);
    // Nothing is started before it is asked for.
    spec.keep_warm = 0;
    spec
}

/// A shell function that finds a request's id, which stands first in what these tests send.
const READ_ID: &str = r#"id_of() { printf '%s' "$1" | sed -n 's/^{"id":\([0-9]*\).*/\1/p'; }; "#;

fn send(
    handle: &ChildrenHandle,
    upstream: usize,
    kind: CallKind,
    session: Option<SessionId>,
    principal: u64,
    message: &Value,
) -> CallHandle {
    let raw = match kind {
        CallKind::Listen | CallKind::EndSession => Vec::new(),
        _ => message.to_string().into_bytes(),
    };
    let call = ChildCall {
        parts: Parts::find(&raw).unwrap_or_default(),
        raw,
        session,
        kind,
        principal,
        cancel_on_drop: session.is_none() && kind == CallKind::Request,
    };
    handle.call(upstream, call).unwrap()
}

fn request(
    handle: &ChildrenHandle,
    upstream: usize,
    session: Option<SessionId>,
    id: &Value,
    method: &str,
    params: &Value,
) -> CallHandle {
    // The id stands first, for the scripts.
    let message = json!({"id": id, "jsonrpc": "2.0", "method": method, "params": params});
    send(handle, upstream, CallKind::Request, session, 1, &message)
}

async fn next(call: &mut CallHandle) -> ChildMessage {
    tokio::time::timeout(PATIENCE, call.recv()).await.expect("an answer in time").expect("a message")
}

async fn answer(call: &mut CallHandle) -> Value {
    match next(call).await {
        ChildMessage::Message { bytes, last: true } => serde_json::from_slice(&bytes).unwrap(),
        other => panic!("no answer: {other:?}"),
    }
}

async fn initialize(handle: &ChildrenHandle, upstream: usize, principal: u64) -> SessionId {
    let hello = json!({"id": 0, "jsonrpc": "2.0", "method": "initialize", "params": {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let mut call = send(handle, upstream, CallKind::Initialize, None, principal, &hello);
    match next(&mut call).await {
        ChildMessage::Initialized { session, .. } => session,
        other => panic!("not initialized: {other:?}"),
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a test against these upstreams, then stops them and sees that the thread ends.
fn with<F: Future<Output = ()>>(specs: Vec<ChildSpec>, test: impl FnOnce(ChildrenHandle) -> F) {
    let (handle, thread) = spawn(specs).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(handle.clone()));
    handle.stop();
    runtime.block_on(until("the thread ends", || thread.is_finished()));
    thread.join().unwrap();
}

fn is_running(pid: &str) -> bool {
    // A zombie does not run; whoever adopted it will reap it.
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
}

fn modern() -> Value {
    json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}})
}

#[test]
fn the_sample_server_serves_both_eras_and_many_clients() {
    with(vec![sample()], |handle| async move {
        let a = initialize(&handle, 0, 1).await;
        let b = initialize(&handle, 0, 1).await;
        let mut calls = Vec::new();
        for n in 0..50 {
            for (name, session) in [("a", a), ("b", b)] {
                let text = format!("{name}{n}");
                let params = json!({"name": "echo", "arguments": {"text": text}});
                let call = request(&handle, 0, Some(session), &json!(n), "tools/call", &params);
                calls.push((call, n, text));
            }
        }
        for (call, n, text) in &mut calls {
            let answer = answer(call).await;
            assert_eq!(answer["id"], *n);
            assert_eq!(answer["result"]["content"][0]["text"], *text);
        }
        let mut found = request(&handle, 0, None, &json!("d"), "server/discover", &modern());
        let found = answer(&mut found).await;
        assert_eq!(found["id"], "d");
        assert_eq!(found["result"]["supportedVersions"][0], "2026-07-28");
        // One process for each era.
        assert_eq!(handle.counters(0).instances, 2);
        assert_eq!(handle.state(0), ChildState::Running);

        let mut foreign =
            send(&handle, 0, CallKind::Request, Some(a), 2, &json!({"id": 1, "jsonrpc": "2.0", "method": "ping"}));
        assert_eq!(next(&mut foreign).await, ChildMessage::SessionUnknown);
        let mut end = send(&handle, 0, CallKind::EndSession, Some(a), 1, &Value::Null);
        assert_eq!(next(&mut end).await, ChildMessage::Accepted);
        let mut late = request(&handle, 0, Some(a), &json!(1), "ping", &json!({}));
        assert_eq!(next(&mut late).await, ChildMessage::SessionUnknown);
        let mut other = request(&handle, 0, Some(b), &json!(1), "ping", &json!({}));
        assert_eq!(answer(&mut other).await["result"], json!({}));
    });
}

#[test]
fn a_worker_on_monoio_is_woken_from_the_children_thread() {
    let (handle, thread) = spawn(vec![sample()]).unwrap();
    let worker = handle.clone();
    let text = std::thread::spawn(move || {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap();
        runtime.block_on(async move {
            let mut params = modern();
            params["name"] = json!("echo");
            params["arguments"] = json!({"text": "over there"});
            let mut call = request(&worker, 0, None, &json!(1), "tools/call", &params);
            match call.recv().await {
                Some(ChildMessage::Message { bytes, last: true }) => String::from_utf8(bytes).unwrap(),
                other => panic!("{other:?}"),
            }
        })
    })
    .join()
    .unwrap();
    assert!(text.contains("over there"));
    drop(handle);
    // The last handle is gone: the thread ends by itself.
    thread.join().unwrap();
}

#[test]
fn a_child_that_exits_at_once_is_restarted_with_back_off() {
    let mut spec = shell("exit 3");
    spec.keep_warm = 1;
    with(vec![spec], |handle| async move {
        until("three crashes", || handle.counters(0).crashes >= 3).await;
        until("it backs off", || handle.state(0) == ChildState::BackingOff).await;
        let mut call = request(&handle, 0, None, &json!(1), "tools/list", &json!({}));
        assert!(matches!(
            next(&mut call).await,
            ChildMessage::Gone { reason: Gone::BackingOff { .. } | Gone::Exited | Gone::Busy }
        ));
    });
}

#[test]
fn a_program_that_cannot_be_started_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "text").unwrap();
    let mut elsewhere = shell("cat");
    program(&mut elsewhere).cwd = Some(directory.path().join("missing"));
    let specs = vec![
        ChildSpec::new("missing", vec!["ringwall-no-such-program".to_owned()]),
        ChildSpec::new("plain", vec![plain.to_string_lossy().into_owned()]),
        ChildSpec::new("empty", Vec::new()),
        elsewhere,
    ];
    with(specs, |handle| async move {
        let faults = [SpawnFault::NotFound, SpawnFault::NotExecutable, SpawnFault::Empty, SpawnFault::Directory];
        for (upstream, fault) in faults.into_iter().enumerate() {
            let mut call = request(&handle, upstream, None, &json!(1), "tools/list", &json!({}));
            let reason = Gone::NotStarted(fault);
            assert_eq!(next(&mut call).await, ChildMessage::Gone { reason });
            assert_eq!(handle.state(upstream), ChildState::Failed);
        }
    });
}

#[test]
fn garbage_is_ignored_and_a_line_of_100_mib_fails_only_its_call() {
    let script = format!(
        r#"{READ_ID}
        echo 'Server running on stdio'; printf '\377\376\n[[[[\n{{"id":1}}\n\n'
        n=0
        while read -r line; do
            id=$(id_of "$line"); n=$((n+1))
            if [ $n = 1 ]; then
                printf '{{"jsonrpc":"2.0","id":%s,"result":{{"x":"' "$id"
                head -c 104857600 /dev/zero | tr '\0' 'x'
                printf '"}}}}\n'
            else
                printf '{{"jsonrpc":"2.0","id":%s,"result":{{}}}}\n' "$id"
            fi
        done"#
    );
    let mut spec = shell(&script);
    spec.max_message_bytes = 1 << 20;
    with(vec![spec], |handle| async move {
        let mut long = request(&handle, 0, None, &json!("long"), "tools/list", &json!({}));
        let mut short = request(&handle, 0, None, &json!("short"), "tools/list", &json!({}));
        assert_eq!(next(&mut long).await, ChildMessage::Gone { reason: Gone::TooLong });
        assert_eq!(answer(&mut short).await["id"], "short");
        // Four that were no messages, one that was too long.
        assert_eq!(handle.counters(0).bad_lines, 5);
    });
}

#[test]
fn a_child_that_never_reads_hinders_nobody_else() {
    with(vec![shell("exec sleep 1000"), sample()], |handle| async move {
        let text = "x".repeat(1 << 20);
        let mut stuck: Vec<CallHandle> = Vec::new();
        for id in 0..20 {
            stuck.push(request(&handle, 0, None, &json!(id), "tools/call", &json!({"x": text})));
        }
        let busy = ChildMessage::Gone { reason: Gone::Busy };
        assert_eq!(next(stuck.last_mut().unwrap()).await, busy);
        let session = initialize(&handle, 1, 1).await;
        let mut call = request(&handle, 1, Some(session), &json!(1), "ping", &json!({}));
        assert_eq!(answer(&mut call).await["id"], 1);
    });
}

#[test]
fn grandchildren_are_killed_with_the_group() {
    let directory = tempfile::tempdir().unwrap();
    let (pids, path) = (directory.path().join("pids"), directory.path().to_owned());
    // Both ignore the polite signal, and the grandchild holds stdout open.
    let script =
        |then: &str| format!(r#"trap '' TERM; sleep 1000 & echo "$$ $!" > pids.new; mv pids.new pids; {then}"#);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    for then in ["while :; do sleep 1000; done", "exit 0"] {
        let _ = std::fs::remove_file(&pids);
        let mut spec = shell(&script(then));
        program(&mut spec).cwd = Some(path.clone());
        with(vec![spec], |handle| {
            let pids = pids.clone();
            async move {
                let _call = request(&handle, 0, None, &json!(1), "tools/list", &json!({}));
                until("it has started", || pids.exists()).await;
            }
        });
        for pid in read(&pids).split_whitespace() {
            // What was killed may need its turn on a core to end.
            let start = Instant::now();
            while is_running(pid) {
                assert!(start.elapsed() < PATIENCE, "{pid} runs on after: {then}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn a_child_sees_a_bare_environment_and_no_descriptors() {
    // Cargo has set many variables that are not among the nine.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let directory = tempfile::tempdir().unwrap();
    let held = std::fs::File::create(directory.path().join("held-by-the-gateway")).unwrap();
    // A descriptor that a careless library left inheritable.
    rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::empty()).unwrap();
    let script = format!(
        r#"{READ_ID} read -r line; id=$(id_of "$line")
        names=$(cat /proc/$$/environ | tr '\0' '\n' | cut -d= -f1 | tr '\n' ' ')
        fds=$(readlink /proc/$$/fd/* | tr '\n' ' ')
        printf '{{"jsonrpc":"2.0","id":%s,"result":{{"names":"%s","fds":"%s","own":"%s"}}}}\n' "$id" "$names" "$fds" "$OWN"
        read -r line"#
    );
    let mut spec = shell(&script);
    program(&mut spec).env = vec![("OWN".to_owned(), "mine".to_owned())];
    with(vec![spec], |handle| async move {
        let mut call = request(&handle, 0, None, &json!(1), "tools/list", &json!({}));
        let result = answer(&mut call).await["result"].clone();
        let allowed = [
            "PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "TMPDIR", "SHELL", "LOGNAME", "OWN", "PWD", "OLDPWD",
            "SHLVL", "_",
        ];
        assert!(result["names"].as_str().unwrap().contains("PATH "), "{result}");
        for name in result["names"].as_str().unwrap().split_whitespace() {
            assert!(allowed.contains(&name), "{name} leaked");
        }
        assert_eq!(result["own"], "mine");
        let open = result["fds"].as_str().unwrap();
        assert!(open.contains("pipe:"), "{open}");
        assert!(!open.contains("held-by-the-gateway"), "{open}");
    });
    drop(held);
}

#[test]
fn a_crash_fails_the_calls_in_flight_and_the_next_process_serves() {
    let script = format!(
        r#"{READ_ID}
        while read -r line; do
            case "$line" in *die*) exit 1;; esac
            id=$(id_of "$line")
            [ -n "$id" ] && printf '{{"jsonrpc":"2.0","id":%s,"result":{{}}}}\n' "$id"
        done"#
    );
    with(vec![shell(&script)], |handle| async move {
        let session = initialize(&handle, 0, 1).await;
        let mut call = request(&handle, 0, Some(session), &json!(1), "die", &json!({}));
        assert_eq!(next(&mut call).await, ChildMessage::Gone { reason: Gone::Exited });
        let mut call = request(&handle, 0, Some(session), &json!(2), "tools/list", &json!({}));
        assert_eq!(next(&mut call).await, ChildMessage::SessionUnknown);
        until("the back-off is over", || handle.state(0) != ChildState::BackingOff).await;
        initialize(&handle, 0, 1).await;
        assert_eq!(handle.counters(0).starts, 2);
    });
}

#[test]
fn dropping_a_stateless_call_cancels_it_at_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let seen = directory.path().join("seen");
    let mut spec = shell("while read -r line; do echo \"$line\" >> seen; done");
    program(&mut spec).cwd = Some(directory.path().to_owned());
    with(vec![spec], |handle| async move {
        let text = || std::fs::read_to_string(&seen).unwrap_or_default();
        let call = request(&handle, 0, None, &json!("mine"), "tools/call", &json!({}));
        until("the call arrives", || text().contains("tools/call")).await;
        drop(call);
        until("the cancellation arrives", || text().contains("notifications/cancelled")).await;
        assert!(!text().contains("mine"));
    });
}

#[test]
fn stopping_ends_calls_in_flight() {
    let (handle, thread) = spawn(vec![shell("cat > /dev/null")]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut call = request(&handle, 0, None, &json!(1), "tools/call", &json!({}));
        until("it has started", || handle.state(0) == ChildState::Running).await;
        handle.stop();
        assert_eq!(next(&mut call).await, ChildMessage::Gone { reason: Gone::Stopping });
        until("the thread ends", || thread.is_finished()).await;
        let call = ChildCall {
            raw: Vec::new(),
            parts: Parts::default(),
            session: None,
            kind: CallKind::Notification,
            principal: 1,
            cancel_on_drop: false,
        };
        assert!(handle.call(0, call).is_err());
    });
}
