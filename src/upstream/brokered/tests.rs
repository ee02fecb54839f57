//! The broker against children that are only queues: routing, sharing, bounds, expiry. No process, no clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::broker::Broker;
use super::handle::{ChildState, ChildrenHandle, Inlets, Vitals};
use super::instance::{Outlet, ToServer};
use super::upkeep::End;
use super::*;
use crate::settings::{SocketTarget, SocketTransport};
use crate::state::call_limit::CallLimit;
use crate::state::lifecycle::UpstreamState;

const VERSION: &str = "2025-11-25";

struct Bench {
    broker: Broker,
    handle: ChildrenHandle,
    inlets: Inlets,
    children: Rc<RefCell<Vec<(u64, Outlet)>>>,
    vitals: Arc<Vitals>,
    now: Instant,
}

impl Bench {
    fn new(change: impl FnOnce(&mut ChildSpec)) -> Self {
        let mut spec = ChildSpec::new("test", vec!["none".to_owned()]);
        change(&mut spec);
        let now = Instant::now();
        let vitals = Arc::<Vitals>::default();
        let (handle, inlets) = ChildrenHandle::new(vec![(spec.max_message_bytes, Arc::clone(&vitals))]);
        let children = Rc::new(RefCell::new(Vec::new()));
        let started = Rc::clone(&children);
        let launch = Box::new(move |no| {
            let (queue, outlet) = ToServer::new();
            started.borrow_mut().push((no, outlet));
            Ok(queue)
        });
        let broker = Broker::new(spec, Arc::clone(&vitals), launch, now);
        Self { broker, handle, inlets, children, vitals, now }
    }

    fn pump(&mut self) {
        while let Ok(command) = self.inlets.inbox.try_recv() {
            self.broker.take(command.serial, command.call, command.to, self.now);
        }
        while let Ok(ended) = self.inlets.ended.try_recv() {
            self.broker.ended(ended.serial, ended.cancel, self.now);
        }
    }

    fn call(&mut self, kind: CallKind, session: Option<SessionId>, principal: u64, message: &Value) -> CallHandle {
        let raw = match kind {
            CallKind::Listen | CallKind::EndSession => Vec::new(),
            // Pretty, so that line breaks have to go.
            _ => serde_json::to_vec_pretty(message).unwrap(),
        };
        let call = ChildCall {
            parts: Parts::find(&raw).unwrap_or_default(),
            raw,
            session,
            kind,
            principal,
            cancel_on_drop: kind == CallKind::Request && session.is_none(),
        };
        let handle = self.handle.call(0, call).unwrap();
        self.pump();
        handle
    }

    /// What child `index` has been written.
    fn written(&mut self, index: usize) -> Vec<Value> {
        let mut children = self.children.borrow_mut();
        let (_, outlet) = &mut children[index];
        let mut out = Vec::new();
        while let Some(line) = outlet.messages.try_next() {
            outlet.messages.written(line.len());
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert!(line.ends_with(b"\n"));
            out.push(serde_json::from_slice(&line).unwrap());
        }
        out
    }

    /// Child `index` says something.
    fn say(&mut self, index: usize, message: &Value) {
        let no = self.children.borrow()[index].0;
        self.broker.on_line(no, message.to_string().as_bytes(), self.now);
    }

    fn started(&self) -> usize {
        self.children.borrow().len()
    }

    /// A client's handshake; the child `index` answers if it is asked.
    fn open(&mut self, index: usize, principal: u64, capabilities: &Value) -> SessionId {
        let mut handle = self.call(
            CallKind::Initialize,
            None,
            principal,
            &json!({"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":VERSION,"capabilities":capabilities}}),
        );
        if let Some(asked) = self.written(index).first() {
            let id = asked["id"].clone();
            self.say(index, &json!({"jsonrpc":"2.0","id":id,"result":{"protocolVersion":VERSION}}));
        }
        match handle.try_recv() {
            Some(ChildMessage::Initialized { session, bytes }) => {
                let answer: Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(answer["id"], "init");
                assert_eq!(answer["result"]["protocolVersion"], VERSION);
                session
            }
            other => panic!("{other:?}"),
        }
    }

    fn request(
        &mut self,
        session: Option<SessionId>,
        principal: u64,
        id: &Value,
        method: &str,
        params: Value,
    ) -> CallHandle {
        let message = json!({"jsonrpc":"2.0","id":id,"method":method,"params":params});
        self.call(CallKind::Request, session, principal, &message)
    }

    fn listen(&mut self, session: SessionId, principal: u64) -> CallHandle {
        let mut handle = self.call(CallKind::Listen, Some(session), principal, &Value::Null);
        assert_eq!(handle.try_recv(), Some(ChildMessage::Accepted));
        handle
    }
}

fn got(handle: &mut CallHandle) -> (Value, bool) {
    match handle.try_recv() {
        Some(ChildMessage::Message { bytes, last }) => (serde_json::from_slice(&bytes).unwrap(), last),
        other => panic!("no message: {other:?}"),
    }
}

fn nothing(handle: &mut CallHandle) {
    assert_eq!(handle.try_recv(), None);
}

#[test]
fn clients_that_agree_share_a_child_and_its_handshake() {
    let mut bench = Bench::new(|_| {});
    let a = bench.open(0, 1, &json!({"roots": {}}));
    let b = bench.open(0, 2, &json!({"roots": {}}));
    assert_ne!(a, b);
    assert_eq!(bench.started(), 1);
    // notifications/initialized goes through once.
    for (session, principal) in [(a, 1), (b, 2)] {
        let note = json!({"jsonrpc":"2.0","method":"notifications/initialized"});
        let mut handle = bench.call(CallKind::Notification, Some(session), principal, &note);
        assert_eq!(handle.try_recv(), Some(ChildMessage::Accepted));
    }
    assert_eq!(bench.written(0).len(), 1);
    // Other capabilities: another child.
    bench.open(1, 1, &json!({}));
    assert_eq!(bench.started(), 2);
}

#[test]
fn two_handshakes_at_the_same_time_are_one_for_the_server() {
    let mut bench = Bench::new(|_| {});
    let hello = |id: u32| json!({"jsonrpc":"2.0","id":id,"method":"initialize","params":{"protocolVersion":VERSION,"capabilities":{}}});
    let mut a = bench.call(CallKind::Initialize, None, 1, &hello(7));
    let mut b = bench.call(CallKind::Initialize, None, 2, &hello(8));
    let asked = bench.written(0);
    assert_eq!(asked.len(), 1);
    bench.say(0, &json!({"jsonrpc":"2.0","id":asked[0]["id"],"result":{}}));
    for (handle, id) in [(&mut a, 7), (&mut b, 8)] {
        let Some(ChildMessage::Initialized { bytes, .. }) = handle.try_recv() else {
            panic!("not initialized");
        };
        assert_eq!(bytes, format!(r#"{{"id":{id},"jsonrpc":"2.0","result":{{}}}}"#).into_bytes());
    }
}

#[test]
fn a_refused_handshake_reaches_all_and_ends_the_child() {
    let mut bench = Bench::new(|_| {});
    let hello = json!({"jsonrpc":"2.0","id":7,"method":"initialize","params":{}});
    let mut a = bench.call(CallKind::Initialize, None, 1, &hello);
    let asked = bench.written(0);
    bench.say(0, &json!({"jsonrpc":"2.0","id":asked[0]["id"],"error":{"code":-32602,"message":"no"}}));
    let (answer, last) = got(&mut a);
    assert!(last);
    assert_eq!(answer["id"], 7);
    assert_eq!(answer["error"]["code"], -32602);
    assert!(bench.broker.instances.is_empty());
}

#[test]
fn the_same_ids_and_progress_tokens_do_not_meet() {
    let mut bench = Bench::new(|_| {});
    let a = bench.open(0, 1, &json!({}));
    let b = bench.open(0, 2, &json!({}));
    let params = json!({"name":"t","_meta":{"progressToken":"tok"}});
    let mut calls = [
        bench.request(Some(a), 1, &json!("1"), "tools/call", params.clone()),
        bench.request(Some(b), 2, &json!("1"), "tools/call", params),
    ];
    let asked = bench.written(0);
    assert_ne!(asked[0]["id"], asked[1]["id"]);
    for (n, asked) in asked.iter().enumerate() {
        let token = &asked["params"]["_meta"]["progressToken"];
        bench.say(
            0,
            &json!({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":token,"progress":n}}),
        );
    }
    for n in [1, 0] {
        bench.say(0, &json!({"jsonrpc":"2.0","id":asked[n]["id"],"result":{"n":n}}));
    }
    for (n, handle) in calls.iter_mut().enumerate() {
        let (progress, last) = got(handle);
        assert!(!last);
        assert_eq!(progress["params"], json!({"progressToken":"tok","progress":n}));
        let (answer, last) = got(handle);
        assert!(last);
        assert_eq!(answer, json!({"jsonrpc":"2.0","id":"1","result":{"n":n}}));
        nothing(handle);
    }
}

#[test]
fn another_principal_has_no_session() {
    let mut bench = Bench::new(|_| {});
    let a = bench.open(0, 1, &json!({}));
    bench.open(0, 2, &json!({}));
    for (session, principal) in [(a, 2), (SessionId(5), 1)] {
        let mut handle = bench.request(Some(session), principal, &json!(1), "tools/list", json!({}));
        assert_eq!(handle.try_recv(), Some(ChildMessage::SessionUnknown));
        for kind in [CallKind::Listen, CallKind::EndSession] {
            let mut handle = bench.call(kind, Some(session), principal, &Value::Null);
            assert_eq!(handle.try_recv(), Some(ChildMessage::SessionUnknown));
        }
    }
    assert!(bench.written(0).is_empty());
    // It still is its owner's.
    bench.listen(a, 1);
}

#[test]
fn server_requests_go_to_the_one_session_they_can_be_for() {
    let mut bench = Bench::new(|_| {});
    let a = bench.open(0, 1, &json!({}));
    let ask = |id: u32| json!({"jsonrpc":"2.0","id":id,"method":"sampling/createMessage","params":{}});
    // One session, no stream: nobody can be asked.
    bench.say(0, &ask(0));
    assert_eq!(bench.written(0)[0]["error"]["code"], -32603);
    // Its GET stream.
    let mut stream = bench.listen(a, 1);
    bench.say(0, &ask(1));
    assert_eq!(got(&mut stream).0["id"], 1);
    // Two sessions, none in flight: refused.
    let b = bench.open(0, 2, &json!({}));
    bench.say(0, &ask(2));
    let refusal = &bench.written(0)[0];
    assert_eq!(refusal["id"], 2);
    assert_eq!(refusal["error"]["message"], "cannot be attributed to one client");
    // One of them in flight: its oldest call.
    let mut first = bench.request(Some(b), 2, &json!(10), "tools/call", json!({}));
    let mut second = bench.request(Some(b), 2, &json!(11), "tools/call", json!({}));
    bench.written(0);
    bench.say(0, &ask(3));
    assert_eq!(got(&mut first).0["id"], 3);
    nothing(&mut second);
    nothing(&mut stream);
    // Only that session can answer, and once.
    let answer = json!({"jsonrpc":"2.0","id":3,"result":{"ok":true}});
    for (session, principal, passed) in [(a, 1, 0), (b, 2, 1), (b, 2, 0)] {
        let mut handle = bench.call(CallKind::Response, Some(session), principal, &answer);
        assert_eq!(handle.try_recv(), Some(ChildMessage::Accepted));
        assert_eq!(bench.written(0).len(), passed);
    }
    // Both in flight: refused.
    let _third = bench.request(Some(a), 1, &json!(10), "tools/call", json!({}));
    bench.written(0);
    bench.say(0, &ask(4));
    assert_eq!(bench.written(0)[0]["error"]["code"], -32603);
    // ping is the gateway's.
    bench.say(0, &json!({"jsonrpc":"2.0","id":"p","method":"ping"}));
    assert_eq!(bench.written(0), [json!({"jsonrpc":"2.0","id":"p","result":{}})]);
}

#[test]
fn notifications_go_to_whom_they_concern() {
    let mut bench = Bench::new(|_| {});
    let a = bench.open(0, 1, &json!({}));
    let b = bench.open(0, 2, &json!({}));
    let (mut on_a, mut on_b) = (bench.listen(a, 1), bench.listen(b, 2));
    let note = |method: &str, params: Value| json!({"jsonrpc":"2.0","method":method,"params":params});
    bench.say(0, &note("notifications/tools/list_changed", json!({})));
    assert_eq!(got(&mut on_a).0["method"], "notifications/tools/list_changed");
    assert_eq!(got(&mut on_b).0["method"], "notifications/tools/list_changed");
    // A log message with two sessions alive is nobody's.
    bench.say(0, &note("notifications/message", json!({"data":"secret"})));
    nothing(&mut on_a);
    nothing(&mut on_b);
    assert_eq!(bench.handle.counters(0).dropped, 1);
    // Resources: only to the subscriber, until the server refuses or it unsubscribes.
    let mut sub = bench.request(Some(a), 1, &json!(1), "resources/subscribe", json!({"uri":"x:1"}));
    let id = bench.written(0)[0]["id"].clone();
    bench.say(0, &json!({"jsonrpc":"2.0","id":id,"result":{}}));
    assert!(got(&mut sub).1);
    bench.say(0, &note("notifications/resources/updated", json!({"uri":"x:1"})));
    bench.say(0, &note("notifications/resources/updated", json!({"uri":"x:2"})));
    assert_eq!(got(&mut on_a).0["params"]["uri"], "x:1");
    nothing(&mut on_a);
    nothing(&mut on_b);
    // A second subscriber keeps the server's subscription alive when the first leaves.
    let _other = bench.request(Some(b), 2, &json!(1), "resources/subscribe", json!({"uri":"x:1"}));
    bench.written(0);
    let mut unsub = bench.request(Some(a), 1, &json!("u"), "resources/unsubscribe", json!({"uri":"x:1"}));
    assert_eq!(got(&mut unsub), (json!({"jsonrpc":"2.0","id":"u","result":{}}), true));
    assert!(bench.written(0).is_empty());
    let mut end = bench.call(CallKind::EndSession, Some(b), 2, &Value::Null);
    assert_eq!(end.try_recv(), Some(ChildMessage::Accepted));
    assert_eq!(on_b.try_recv(), Some(ChildMessage::Gone { reason: Gone::Closed }));
    let methods: Vec<Value> = bench.written(0).iter().map(|m| m["method"].clone()).collect();
    assert_eq!(methods, ["notifications/cancelled", "resources/unsubscribe"]);
}

#[test]
fn cancellation_in_both_eras() {
    let mut bench = Bench::new(|_| {});
    let a = bench.open(0, 1, &json!({}));
    let b = bench.open(0, 2, &json!({}));
    let mut call = bench.request(Some(a), 1, &json!(5), "tools/call", json!({}));
    let id = bench.written(0)[0]["id"].clone();
    let cancel = json!({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5,"reason":"tired"}});
    // Not by a neighbour with the same id.
    bench.call(CallKind::Notification, Some(b), 2, &cancel);
    assert!(bench.written(0).is_empty());
    bench.call(CallKind::Notification, Some(a), 1, &cancel);
    assert_eq!(bench.written(0)[0]["params"], json!({"requestId":id,"reason":"tired"}));
    bench.now += Duration::from_secs(6);
    let now = bench.now;
    bench.broker.tick(now);
    assert_eq!(call.try_recv(), Some(ChildMessage::Gone { reason: Gone::Cancelled }));
    // Legacy: a client that goes does not cancel.
    drop(bench.request(Some(a), 1, &json!(6), "tools/call", json!({})));
    bench.pump();
    assert_eq!(bench.written(0).len(), 1);
    // 2026-07-28: it does.
    let call = bench.request(None, 1, &json!(6), "tools/call", json!({}));
    let id = bench.written(1)[0]["id"].clone();
    drop(call);
    bench.pump();
    let note = &bench.written(1)[0];
    assert_eq!(note["method"], "notifications/cancelled");
    assert_eq!(note["params"]["requestId"], id);
    // Its late answer is nobody's.
    bench.say(1, &json!({"jsonrpc":"2.0","id":id,"result":{}}));
}

#[test]
fn subscriptions_of_2026_have_their_own_ids_again() {
    let mut bench = Bench::new(|_| {});
    let key = "io.modelcontextprotocol/subscriptionId";
    let mut calls = [
        bench.request(None, 1, &json!(77), "subscriptions/listen", json!({})),
        bench.request(None, 2, &json!("s"), "subscriptions/listen", json!({})),
    ];
    let asked = bench.written(0);
    for asked in &asked {
        bench.say(0, &json!({"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{key:asked["id"]}}}));
    }
    assert_eq!(got(&mut calls[0]).0["params"]["_meta"][key], 77);
    assert_eq!(got(&mut calls[1]).0["params"]["_meta"][key], "s");
    // A server that makes a string of the number gets its form back.
    let form = asked[0]["id"].to_string();
    bench.say(0, &json!({"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{key:form}}}));
    assert_eq!(got(&mut calls[0]).0["params"]["_meta"][key], "77");
    nothing(&mut calls[1]);
    // Without a subscription it is nobody's; a server has no requests to make.
    bench.say(0, &json!({"jsonrpc":"2.0","method":"notifications/tools/list_changed"}));
    bench.say(0, &json!({"jsonrpc":"2.0","id":1,"method":"roots/list"}));
    assert_eq!(bench.written(0)[0]["error"]["code"], -32603);
    nothing(&mut calls[0]);
    // The ends: by result, and by the server's cancellation.
    bench.say(
        0,
        &json!({"jsonrpc":"2.0","id":asked[0]["id"],"result":{"resultType":"complete","_meta":{key:asked[0]["id"]}}}),
    );
    let (answer, last) = got(&mut calls[0]);
    assert!(last);
    assert_eq!((&answer["id"], &answer["result"]["_meta"][key]), (&json!(77), &json!(77)));
    bench.say(0, &json!({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":asked[1]["id"]}}));
    assert_eq!(calls[1].try_recv(), Some(ChildMessage::Gone { reason: Gone::Closed }));
}

#[test]
fn log_messages_of_2026_go_to_the_only_call_that_asked_for_them() {
    let mut bench = Bench::new(|_| {});
    let log = json!({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}});
    let wanting = json!({"_meta":{"io.modelcontextprotocol/logLevel":"info"}});
    let mut a = bench.request(None, 1, &json!(1), "tools/call", wanting.clone());
    bench.say(0, &log);
    assert_eq!(got(&mut a).0, log);
    let mut b = bench.request(None, 2, &json!(1), "tools/call", wanting);
    bench.say(0, &log);
    nothing(&mut a);
    nothing(&mut b);
    drop(a);
    drop(b);
    bench.pump();
    let mut c = bench.request(None, 1, &json!(1), "tools/call", json!({}));
    bench.say(0, &log);
    nothing(&mut c);
}

#[test]
fn a_dead_child_takes_its_calls_and_sessions_with_it() {
    let mut bench = Bench::new(|_| {});
    let a = bench.open(0, 1, &json!({}));
    let mut stream = bench.listen(a, 1);
    let mut call = bench.request(Some(a), 1, &json!(1), "tools/call", json!({}));
    bench.written(0);
    let no = bench.children.borrow()[0].0;
    let now = bench.now;
    bench.broker.on_end(no, &End::Exited("exited".to_owned()), now);
    let exited = Some(ChildMessage::Gone { reason: Gone::Exited });
    assert_eq!(call.try_recv(), exited);
    assert_eq!(stream.try_recv(), exited);
    let mut again = bench.request(Some(a), 1, &json!(2), "tools/call", json!({}));
    assert_eq!(again.try_recv(), Some(ChildMessage::SessionUnknown));
    assert_eq!(bench.handle.state(0), ChildState::BackingOff);
    let mut early = bench.request(None, 1, &json!(3), "tools/call", json!({}));
    assert!(matches!(
        early.try_recv(),
        Some(ChildMessage::Gone { reason: Gone::BackingOff { retry_after_ms: 50..=100 } })
    ));
    // After the delay one is started ahead, and used.
    bench.now += Duration::from_secs(1);
    let now = bench.now;
    bench.broker.tick(now);
    assert_eq!((bench.started(), bench.handle.state(0)), (2, ChildState::Running));
    bench.request(None, 1, &json!(4), "tools/call", json!({}));
    assert_eq!(bench.written(1).len(), 1);
}

#[test]
fn calls_in_flight_are_one_number_over_all_instances_and_what_is_not_waited_for_counts_no_more() {
    let busy = || Some(ChildMessage::Gone { reason: Gone::Busy });
    let calls = Arc::new(CallLimit::new(2));
    let limit = Arc::clone(&calls);
    let mut bench = Bench::new(move |spec| spec.calls = limit);
    let held = || calls.held();

    // A handshake counts while it is out.
    let hello = json!({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":VERSION,"capabilities":{"x":{}}}});
    let greeting = bench.call(CallKind::Initialize, None, 1, &hello);
    assert_eq!(held(), 1);
    let id = bench.written(0)[0]["id"].clone();
    bench.say(0, &json!({"jsonrpc":"2.0","id":id,"result":{"protocolVersion":VERSION}}));
    drop(greeting);
    assert_eq!(held(), 0);

    // Two instances, and a connection of a worker beside them.
    let session = bench.open(0, 1, &json!({"x":{}}));
    let first = bench.request(Some(session), 1, &json!(1), "tools/call", json!({}));
    let beside = CallLimit::try_take(Arc::clone(&calls)).unwrap();
    let mut refused = bench.request(None, 1, &json!(2), "tools/call", json!({}));
    assert_eq!((refused.try_recv(), held()), (busy(), 2));
    drop(beside);
    let second = bench.request(None, 1, &json!(3), "tools/call", json!({}));
    assert_eq!((bench.started(), held()), (2, 2));
    let mut refused = bench.request(Some(session), 1, &json!(4), "tools/call", json!({}));
    assert_eq!(refused.try_recv(), busy());
    let mut refused =
        bench.call(CallKind::Initialize, None, 1, &json!({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}));
    assert_eq!((refused.try_recv(), held()), (busy(), 2));

    // Clients that leave: their calls run on unheard, or are cancelled.
    drop(first);
    bench.pump();
    assert_eq!(held(), 1);
    drop(second);
    bench.pump();
    assert_eq!(held(), 0);

    // A subscription that stands is no call that is waited for.
    let mut stream = bench.request(None, 1, &json!(5), "subscriptions/listen", json!({}));
    assert_eq!(held(), 1);
    let id = bench.written(1).last().unwrap()["id"].clone();
    bench.say(
        1,
        &json!({"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":id}}}),
    );
    assert_eq!(got(&mut stream).0["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(held(), 0);

    // An answer; an instance that ends.
    let mut answered = bench.request(None, 1, &json!(6), "tools/call", json!({}));
    let mut cut_off = bench.request(None, 1, &json!(7), "tools/call", json!({}));
    assert_eq!(held(), 2);
    let id = bench.written(1)[0]["id"].clone();
    bench.say(1, &json!({"jsonrpc":"2.0","id":id,"result":{}}));
    assert_eq!((got(&mut answered).1, held()), (true, 1));
    let (no, now) = (bench.children.borrow()[1].0, bench.now);
    bench.broker.on_end(no, &End::Closed, now);
    assert!(matches!(cut_off.try_recv(), Some(ChildMessage::Gone { .. })));
    assert_eq!(held(), 0);
}

#[test]
fn everything_is_bounded() {
    // Unanswered calls.
    let mut bench = Bench::new(|spec| spec.calls = Arc::new(CallLimit::new(2)));
    let busy = Some(ChildMessage::Gone { reason: Gone::Busy });
    let mut calls: Vec<CallHandle> =
        (0..3).map(|id| bench.request(None, 1, &json!(id), "tools/call", json!({}))).collect();
    assert_eq!(calls[2].try_recv(), busy);
    nothing(&mut calls[1]);

    // A child that does not read: bytes, then messages.
    for (size, count) in [(1 << 20, 8), (10, 300)] {
        let mut bench = Bench::new(|_| {});
        let mut calls: Vec<CallHandle> = (0..count)
            .map(|id| bench.request(None, 1, &json!(id), "tools/call", json!({"x": "y".repeat(size)})))
            .collect();
        assert_eq!(calls[count - 1].try_recv(), busy, "{size}");
        nothing(&mut calls[0]);
    }

    // A client that does not read is cut, and its call cancelled.
    let mut bench = Bench::new(|_| {});
    let mut call = bench.request(None, 1, &json!(1), "tools/call", json!({"_meta":{"progressToken":1}}));
    let id = bench.written(0)[0]["id"].clone();
    for n in 0..200 {
        bench.say(
            0,
            &json!({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":id,"progress":n}}),
        );
    }
    assert_eq!(bench.written(0)[0]["method"], "notifications/cancelled");
    for n in 0..64 {
        assert_eq!(got(&mut call).0["params"]["progress"], n);
    }
    nothing(&mut call);

    // Sessions: whoever fills the table loses the oldest of its own.
    let mut bench = Bench::new(|spec| spec.max_sessions = 3);
    let theirs = bench.open(0, 2, &json!({}));
    let first = bench.open(0, 1, &json!({}));
    for _ in 0..5 {
        bench.now += Duration::from_secs(1);
        bench.open(0, 1, &json!({}));
    }
    bench.listen(theirs, 2);
    let mut old = bench.request(Some(first), 1, &json!(1), "tools/list", json!({}));
    assert_eq!(old.try_recv(), Some(ChildMessage::SessionUnknown));

    // Processes: an idle one with sessions is spared for a while.
    let mut bench = Bench::new(|spec| spec.max_instances = 2);
    bench.open(0, 1, &json!({"a":{}}));
    bench.open(1, 1, &json!({"b":{}}));
    let hello = json!({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{"c":{}}}});
    let mut third = bench.call(CallKind::Initialize, None, 1, &hello);
    assert_eq!(third.try_recv(), busy);
    bench.now += Duration::from_secs(11);
    let _third = bench.call(CallKind::Initialize, None, 1, &hello);
    assert_eq!(bench.started(), 3);
    assert_eq!(bench.broker.instances.len(), 2);

    // Ids.
    let mut long = bench.request(None, 1, &json!("x".repeat(2000)), "tools/list", json!({}));
    assert_eq!(long.try_recv(), Some(ChildMessage::Gone { reason: Gone::Malformed }));
}

#[test]
fn time_ends_what_is_idle() {
    let mut bench = Bench::new(|_| {});
    let a = bench.open(0, 1, &json!({"a":{}}));
    let _b = bench.open(1, 1, &json!({"b":{}}));
    let stream = bench.listen(a, 1);
    bench.now += Duration::from_secs(31 * 60);
    let now = bench.now;
    bench.broker.tick(now);
    // The one without stream is gone, and its child with it; the other is open.
    assert_eq!(bench.broker.instances.len(), 1);
    let call = bench.request(Some(a), 1, &json!(1), "tools/list", json!({}));
    drop(stream);
    drop(call);
    bench.pump();
    bench.now += Duration::from_secs(31 * 60);
    let now = bench.now;
    bench.broker.tick(now);
    let mut late = bench.request(Some(a), 1, &json!(1), "tools/list", json!({}));
    assert_eq!(late.try_recv(), Some(ChildMessage::SessionUnknown));
    // One process is kept warm.
    assert_eq!(bench.broker.instances.len(), 1);
    assert_eq!(bench.vitals.instances.load(Relaxed), 1);
    // A handshake that is never answered.
    let mut bench = Bench::new(|_| {});
    let hello = json!({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}});
    let mut silent = bench.call(CallKind::Initialize, None, 1, &hello);
    bench.now += Duration::from_secs(121);
    let now = bench.now;
    bench.broker.tick(now);
    assert_eq!(silent.try_recv(), Some(ChildMessage::Gone { reason: Gone::NoHandshake }));
}

#[test]
fn principals_can_be_kept_apart() {
    let mut bench = Bench::new(|spec| spec.isolate_principals = true);
    bench.open(0, 1, &json!({}));
    bench.open(1, 2, &json!({}));
    bench.open(1, 2, &json!({}));
    assert_eq!(bench.started(), 2);
}

#[test]
fn answers_that_are_too_long_fail_their_call() {
    let mut bench = Bench::new(|_| {});
    let mut a = bench.request(None, 1, &json!(1), "tools/call", json!({}));
    let mut b = bench.request(None, 1, &json!(2), "tools/call", json!({}));
    let id = bench.written(0)[0]["id"].as_u64();
    let (no, now) = (bench.children.borrow()[0].0, bench.now);
    bench.broker.on_too_long(no, None, now);
    bench.broker.on_too_long(no, id, now);
    assert_eq!(a.try_recv(), Some(ChildMessage::Gone { reason: Gone::TooLong }));
    nothing(&mut b);
    bench.broker.on_line(no, b"Server ready", now);
    bench.broker.on_line(no, b"  ", now);
    assert_eq!(bench.handle.counters(0).bad_lines, 3);
}

/// A spec of connections instead of processes.
fn on_a_socket(spec: &mut ChildSpec) {
    let target = SocketTarget {
        transport: SocketTransport::Lines,
        tls: false,
        host: "127.0.0.1".to_owned(),
        port: 1,
        path_and_query: String::new(),
        authority: "127.0.0.1:1".to_owned(),
        max_instances: 4,
    };
    *spec = ChildSpec::socket(
        "test",
        SocketSpec {
            target,
            upstream: Arc::new(UpstreamState::new("test")),
            tls: None,
            fields: zeroize::Zeroizing::default(),
            connect_timeout: Duration::from_secs(1),
            ping_every: Duration::from_secs(1),
        },
    );
}

fn reason(handle: &mut CallHandle) -> Gone {
    match handle.try_recv() {
        Some(ChildMessage::Gone { reason }) => reason,
        other => panic!("not gone: {other:?}"),
    }
}

#[test]
fn an_idle_connection_that_the_server_closes_is_no_crash() {
    let mut bench = Bench::new(on_a_socket);
    let now = bench.now;
    bench.broker.tick(now);
    assert_eq!(bench.started(), 0, "nothing is connected to before it is needed");
    let session = bench.open(0, 1, &json!({}));
    let mut stream = bench.listen(session, 1);
    let no = bench.children.borrow()[0].0;
    bench.broker.on_end(no, &End::Closed, now);
    assert_eq!(reason(&mut stream), Gone::Disconnected);
    let mut late = bench.request(Some(session), 1, &json!(1), "tools/call", json!({}));
    assert_eq!(late.try_recv(), Some(ChildMessage::SessionUnknown), "the session went with its connection");
    assert_eq!((bench.handle.counters(0).crashes, bench.handle.state(0)), (0, ChildState::Idle));
    // The next call is not made to wait.
    let mut next = bench.request(None, 1, &json!(1), "tools/call", json!({}));
    assert_eq!((bench.started(), bench.written(1).len()), (2, 1));
    nothing(&mut next);
}

#[test]
fn what_was_still_queued_when_an_instance_ended_was_not_sent() {
    for (change, end, broken) in [
        (on_a_socket as fn(&mut ChildSpec), End::Closed, Gone::Disconnected),
        (on_a_socket, End::Broken("reset".to_owned()), Gone::Disconnected),
        (|_| {}, End::Exited("killed".to_owned()), Gone::Exited),
    ] {
        let mut bench = Bench::new(change);
        let now = bench.now;
        let mut sent = bench.request(None, 1, &json!(1), "tools/call", json!({}));
        assert_eq!(bench.written(0).len(), 1);
        let mut queued = bench.request(None, 2, &json!(1), "tools/call", json!({}));
        let no = bench.children.borrow()[0].0;
        bench.broker.on_end(no, &end, now);
        assert_eq!((reason(&mut sent), reason(&mut queued)), (broken, Gone::Unsent), "{end:?}");
        assert!(Gone::Unsent.nothing_sent() && !Gone::Disconnected.nothing_sent() && !Gone::Exited.nothing_sent());
        assert_eq!(bench.handle.counters(0).crashes, 1, "{end:?}");
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_tried_again_later_and_later() {
    let mut bench = Bench::new(on_a_socket);
    let mut waits = Vec::new();
    for index in 0..4 {
        let now = bench.now;
        let mut calls = [1, 2].map(|principal| bench.request(None, principal, &json!(1), "tools/call", json!({})));
        assert_eq!(bench.started(), index + 1, "both calls wait for one connection");
        let no = bench.children.borrow()[index].0;
        bench.broker.on_end(no, &End::Unreachable("refused".to_owned()), now);
        let [one, two] = &mut calls;
        let Gone::Unreachable { retry_after_ms } = reason(one) else { panic!("not unreachable") };
        assert_eq!(reason(two), Gone::Unreachable { retry_after_ms });
        assert!(Gone::Unreachable { retry_after_ms }.nothing_sent());
        // Until then nobody knocks.
        let mut early = bench.request(None, 1, &json!(2), "tools/call", json!({}));
        assert!(matches!(reason(&mut early), Gone::Unreachable { .. }));
        assert_eq!(bench.started(), index + 1);
        waits.push(retry_after_ms);
        bench.now += Duration::from_millis(retry_after_ms + 1);
    }
    assert!(waits[3] > 2 * waits[0], "{waits:?}");
}
