//! Which message goes to whom.

use super::bench::*;

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
