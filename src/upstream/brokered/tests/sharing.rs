//! Who shares a child, and whose session is whose.

use super::bench::*;

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
fn principals_can_be_kept_apart() {
    let mut bench = Bench::new(|spec| spec.isolate_principals = true);
    bench.open(0, 1, &json!({}));
    bench.open(1, 2, &json!({}));
    bench.open(1, 2, &json!({}));
    assert_eq!(bench.started(), 2);
}
