//! A broker, the queues that its children are, and invented time.

pub(super) use std::cell::RefCell;
pub(super) use std::rc::Rc;
pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::Ordering::Relaxed;
pub(super) use std::time::{Duration, Instant};

pub(super) use serde_json::{Value, json};

pub(super) use crate::settings::{SocketTarget, SocketTransport};
pub(super) use crate::state::call_limit::CallLimit;
pub(super) use crate::state::lifecycle::UpstreamState;
pub(super) use crate::upstream::brokered::broker::Broker;
pub(super) use crate::upstream::brokered::handle::{ChildState, ChildrenHandle, Inlets, Vitals};
pub(super) use crate::upstream::brokered::instance::{Outlet, ToServer};
pub(super) use crate::upstream::brokered::upkeep::End;
pub(super) use crate::upstream::brokered::*;

pub(super) const VERSION: &str = "2025-11-25";

pub(super) struct Bench {
    pub(super) broker: Broker,
    pub(super) handle: ChildrenHandle,
    pub(super) inlets: Inlets,
    pub(super) children: Rc<RefCell<Vec<(u64, Outlet)>>>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) now: Instant,
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut ChildSpec)) -> Self {
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

    pub(super) fn pump(&mut self) {
        while let Ok(command) = self.inlets.inbox.try_recv() {
            self.broker.take(command.serial, command.call, command.to, self.now);
        }
        while let Ok(ended) = self.inlets.ended.try_recv() {
            self.broker.ended(ended.serial, ended.cancel, self.now);
        }
    }

    pub(super) fn call(
        &mut self,
        kind: CallKind,
        session: Option<SessionId>,
        principal: u64,
        message: &Value,
    ) -> CallHandle {
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
    pub(super) fn written(&mut self, index: usize) -> Vec<Value> {
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
    pub(super) fn say(&mut self, index: usize, message: &Value) {
        let no = self.children.borrow()[index].0;
        self.broker.on_line(no, message.to_string().as_bytes(), self.now);
    }

    pub(super) fn started(&self) -> usize {
        self.children.borrow().len()
    }

    /// A client's handshake; the child `index` answers if it is asked.
    pub(super) fn open(&mut self, index: usize, principal: u64, capabilities: &Value) -> SessionId {
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

    pub(super) fn request(
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

    pub(super) fn listen(&mut self, session: SessionId, principal: u64) -> CallHandle {
        let mut handle = self.call(CallKind::Listen, Some(session), principal, &Value::Null);
        assert_eq!(handle.try_recv(), Some(ChildMessage::Accepted));
        handle
    }
}

pub(super) fn got(handle: &mut CallHandle) -> (Value, bool) {
    match handle.try_recv() {
        Some(ChildMessage::Message { bytes, last }) => (serde_json::from_slice(&bytes).unwrap(), last),
        other => panic!("no message: {other:?}"),
    }
}

pub(super) fn nothing(handle: &mut CallHandle) {
    assert_eq!(handle.try_recv(), None);
}
