//! What becomes of calls and sessions when a child or a connection ends, or time is over.

use super::bench::*;

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
