//! What is bounded.

use super::bench::*;

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
