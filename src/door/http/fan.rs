//! Messages that concern several upstreams: what they answer is made into one. An upstream that does not answer is left
//! out; the others' tools stay.

use tokio::sync::mpsc;

use super::answer::{self, Fields};
use super::plan::Call;
use super::spread::{Answers, Spread, What};
use super::{Connection, Flow, merged};
use crate::bounds;
use crate::rpc::list::ListKind;
use crate::rpc::{Era, Kind, reply};
use crate::state::events::Outcome;
use crate::upstream::merge::{self, Listing};
use crate::upstream::route::Fan;

/// What became of asking several upstreams.
enum Merged {
    /// A result (raw JSON).
    Result(Vec<u8>),
    /// An upstream does not know its session any more: the client must initialize again.
    SessionLost,
    /// None answered.
    Nobody,
}

impl Connection {
    /// Serves a message that concerns several upstreams. On [`Flow::Next`] the answer stands in the output.
    pub(super) async fn fan(&mut self, mut call: Call, fan: Fan, spread: Spread) -> Flow {
        let worker = self.worker.clone();
        let soon = What::Message(bounds::FAN_OUT_TIMEOUT_MS);
        match fan {
            Fan::List(kind) => {
                let merged = self.merged_list(&call, kind, spread).await;
                self.answer_merged(&mut call, merged);
            }
            Fan::Initialize => {
                // A stdio server may be starting for the first time; who is missing here is missing for the whole session.
                let patience_ms = worker.upstreams.iter().map(|(_, upstream)| upstream.call_timeout_ms).max();
                let what = What::Message(patience_ms.unwrap_or(bounds::FAN_OUT_TIMEOUT_MS));
                let answers = spread.ask_all(&worker, what).await;
                self.answer_initialize(&mut call, &answers);
            }
            Fan::Discover => {
                let answers = spread.ask_all(&worker, soon).await;
                let results: Vec<_> = self.results(&answers).into_iter().map(|(_, result)| result).collect();
                let merged = merge::merge_discover(&results).map(|merged| merged.to_string().into_bytes());
                self.answer_merged(&mut call, merged.map_or(Merged::Nobody, Merged::Result));
            }
            Fan::Tell => {
                let answers = spread.ask_all(&worker, soon).await;
                self.answer_told(&mut call, &answers);
            }
            Fan::FirstThatKnows => self.ask_in_turn(&mut call, spread).await,
            Fan::Listen => {
                let (sender, receiver) = mpsc::channel(bounds::STREAM_QUEUE);
                for (index, session) in &spread.parts {
                    if let Ok(outgoing) = spread.inner.compose(&worker, *index, session.as_deref(), &spread.inner.raw) {
                        merged::pump(&worker, *index, outgoing, sender.clone());
                    }
                }
                drop(sender);
                return self.pass_merged(call, receiver).await;
            }
        }
        Flow::Next
    }

    /// Asks for a list on behalf of a message that acts on something nobody has listed.
    pub(super) async fn look_again(&mut self, call: &Call, kind: ListKind, spread: Spread) {
        let _ = self.merged_list(call, kind, spread.for_list(kind)).await;
    }

    async fn merged_list(&mut self, call: &Call, kind: ListKind, spread: Spread) -> Merged {
        let worker = self.worker.clone();
        let answers = spread.ask_all(&worker, What::Pages(kind)).await;
        if session_lost(call, &answers) {
            return Merged::SessionLost;
        }
        if answers.iter().all(|(_, answer)| answer.is_err()) {
            return Merged::Nobody;
        }
        let listings: Vec<Listing> = answers
            .into_iter()
            .filter_map(|(upstream, answer)| {
                let pages = answer.ok()?.into_iter().map(|asked| asked.response).collect();
                Some(Listing { upstream, pages })
            })
            .collect();
        let mut scratch = worker.scratch.borrow_mut();
        Merged::Result(merge::merge_lists(&worker.upstreams, &mut scratch.parser, kind, &listings, call.era))
    }

    /// The results among the answers, with their upstreams.
    fn results(&self, answers: &Answers) -> Vec<(usize, serde_json::Value)> {
        let mut scratch = self.worker.scratch.borrow_mut();
        let mut results = Vec::new();
        for (index, answer) in answers {
            let Some(asked) = answer.as_ref().ok().and_then(|pages| pages.first()) else { continue };
            let Ok(envelope) = scratch.parser.parse(&asked.response) else { continue };
            results.extend(merge::result_of(&envelope, &asked.response).map(|result| (*index, result)));
        }
        results
    }

    fn answer_merged(&mut self, call: &mut Call, merged: Merged) {
        match merged {
            Merged::Result(result) => self.answer_result(call, &result, None),
            Merged::SessionLost => {
                self.answer_rpc(call, 404, -32001, "Session not found: initialize again");
                self.finish(call, Outcome::RpcError, 404);
            }
            Merged::Nobody => {
                self.answer_rpc(call, 502, -32001, "Upstream error: no upstream answered");
                self.finish(call, Outcome::UpstreamError, 502);
            }
        }
    }

    fn answer_result(&mut self, call: &mut Call, result: &[u8], session: Option<&str>) {
        let mut body = Vec::with_capacity(result.len() + 64);
        reply::result(&mut body, call.id(&self.notes), result);
        let fields = Fields { close: !call.keep_alive, session, ..Fields::default() };
        answer::whole(&mut self.output, 200, "application/json", &body, fields);
        self.worker.metrics.response(200);
        self.finish(call, Outcome::Ok, 200);
    }

    /// A notification, or a request whose answer says nothing, once all have been told.
    fn answer_told(&mut self, call: &mut Call, answers: &Answers) {
        if session_lost(call, answers) {
            return self.answer_merged(call, Merged::SessionLost);
        }
        if answers.iter().all(|(_, answer)| answer.is_err()) {
            return self.answer_merged(call, Merged::Nobody);
        }
        if call.kind == Kind::Request {
            return self.answer_empty_result(call);
        }
        answer::whole(&mut self.output, 202, "", b"", Fields { close: !call.keep_alive, ..Fields::default() });
        self.worker.metrics.response(202);
    }

    fn answer_initialize(&mut self, call: &mut Call, answers: &Answers) {
        let results = self.results(answers);
        let values: Vec<_> = results.iter().map(|(_, result)| result.clone()).collect();
        let Some(merged) = merge::merge_initialize(&values) else { return self.answer_merged(call, Merged::Nobody) };
        let worker = self.worker.clone();
        let parts = results.iter().filter_map(|(index, _)| {
            let (_, answer) = answers.iter().find(|(of, _)| of == index)?;
            let asked = answer.as_ref().ok()?.first()?;
            Some((worker.upstreams.get(*index)?.tag, asked.session.as_deref().unwrap_or_default()))
        });
        match self.seal(parts) {
            Some(sealed) => self.answer_result(call, merged.to_string().as_bytes(), Some(&sealed)),
            None => {
                self.answer_rpc(call, 502, -32001, "Upstream error: the session ids of the upstreams are too long");
                self.finish(call, Outcome::UpstreamError, 502);
            }
        }
    }

    /// Asks one upstream after the other until one answers with a result; else the error that says most is the answer.
    async fn ask_in_turn(&mut self, call: &mut Call, spread: Spread) {
        let worker = self.worker.clone();
        let mut best: Option<(Option<i64>, u16, Vec<u8>)> = None;
        for (index, session) in &spread.parts {
            let timeout_ms = worker.upstreams.get(*index).map_or(0, |upstream| upstream.call_timeout_ms);
            let asked = spread.inner.ask_once(&worker, *index, session.as_deref(), &spread.inner.raw, timeout_ms).await;
            let Ok(asked) = asked else { continue };
            let parsed = worker.scratch.borrow_mut().parser.parse(&asked.response);
            let Ok(envelope) = parsed else { continue };
            if envelope.kind == Kind::Response {
                best = Some((None, 200, asked.response));
                break;
            }
            // "I do not know that method" says less than "I do not have that resource".
            let says_more = best.as_ref().is_none_or(|(code, ..)| *code == Some(-32601));
            if says_more {
                best = Some((envelope.error_code, asked.status, asked.response));
            }
        }
        let Some((code, status, response)) = best else { return self.answer_merged(call, Merged::Nobody) };
        let (outcome, status) = match code {
            None => (Outcome::Ok, 200),
            // A stdio server's error has no status of its own.
            Some(_) if status == 200 => (Outcome::RpcError, super::child::modern_status(call, code)),
            Some(_) => (Outcome::RpcError, status),
        };
        answer::json(&mut self.output, status, &response, !call.keep_alive);
        self.worker.metrics.response(status);
        self.finish(call, outcome, status);
    }
}

/// Whether an upstream has answered that it does not know its part of the session.
fn session_lost(call: &Call, answers: &Answers) -> bool {
    let lost = |answer: &Vec<crate::upstream::ask::Asked>| answer.iter().any(|asked| asked.status == 404);
    call.era != Era::Modern && answers.iter().any(|(_, answer)| answer.as_ref().is_ok_and(lost))
}
