//! Messages that concern several upstreams: what they answer is made into one. An upstream that does not answer is left
//! out; the others' tools stay.
//!
//! What comes out is a value, [`FanAnswer`]; each door says it in its own words.

use std::rc::Rc;

use tokio::sync::mpsc;

use super::pump::{self, Piece};
use super::spread::{Answers, Spread, What};
use crate::bounds;
use crate::rpc::list::ListKind;
use crate::rpc::{Era, Kind};
use crate::state::events::Outcome;
use crate::upstream::merge::{self, Listing, Wanted};
use crate::upstream::route::Fan;
use crate::worker::Worker;

/// What several upstreams' answers come to.
pub(crate) enum FanAnswer {
    /// A result (raw JSON) for the client's id.
    Result(Vec<u8>),
    /// The result of `initialize`, and the sessions that it opened: upstreams' tags and ids.
    Initialized(Vec<u8>, Vec<(u32, Vec<u8>)>),
    /// One upstream's whole response, which has the client's id.
    Response {
        /// The message.
        bytes: Vec<u8>,
        /// The HTTP status it came under; 200 where it had none.
        status: u16,
        /// The code, of an error.
        error: Option<i64>,
    },
    /// A notification that all have been told, or a request whose answer says nothing.
    Told,
    /// No answer.
    Fault {
        /// The HTTP status that goes with it.
        status: u16,
        /// What the client reads.
        text: &'static str,
        /// How the call is recorded.
        outcome: Outcome,
    },
}

const NOBODY: FanAnswer =
    FanAnswer::Fault { status: 502, text: "Upstream error: no upstream answered", outcome: Outcome::UpstreamError };

const SESSION_LOST: FanAnswer =
    FanAnswer::Fault { status: 404, text: "Session not found: initialize again", outcome: Outcome::RpcError };

/// Asks the upstreams of `spread` and makes one answer of theirs. Not for [`Fan::Listen`], whose answer is a stream: [`listen`].
pub(crate) async fn ask(worker: &Rc<Worker>, era: Era, fan: Fan, spread: Spread) -> FanAnswer {
    let soon = What::Message(bounds::FAN_OUT_TIMEOUT_MS);
    match fan {
        Fan::List(kind) => merged_list(worker, era, kind, spread).await,
        Fan::Initialize => {
            // A stdio server may be starting for the first time; who is missing here is missing for the whole session.
            let patience_ms = worker.upstreams.iter().map(|(_, upstream)| upstream.call_timeout_ms).max();
            let what = What::Message(patience_ms.unwrap_or(bounds::FAN_OUT_TIMEOUT_MS));
            initialized(worker, &spread.ask_all(worker, what).await)
        }
        Fan::Discover => {
            let answers = spread.ask_all(worker, soon).await;
            let results: Vec<_> = results(worker, &answers).into_iter().map(|(_, result)| result).collect();
            merge::merge_discover(&results).map_or(NOBODY, |merged| FanAnswer::Result(merged.to_string().into_bytes()))
        }
        Fan::Tell => told(era, &spread.ask_all(worker, soon).await),
        Fan::FirstThatKnows => in_turn(worker, spread).await,
        // A stream is asked for with `listen`.
        Fan::Listen => NOBODY,
    }
}

/// Opens the streams of all upstreams of `spread`.
pub(crate) fn listen(worker: &Rc<Worker>, spread: &Spread) -> mpsc::Receiver<Piece> {
    let (sender, receiver) = mpsc::channel(bounds::STREAM_QUEUE);
    for (index, session) in &spread.parts {
        if let Ok(outgoing) = spread.inner.compose(worker, *index, session.as_deref(), &spread.inner.raw) {
            // Nothing is listed over these.
            pump::pump(worker, (*index, None), outgoing, sender.clone());
        }
    }
    receiver
}

/// Asks for a list on behalf of a message that acts on something nobody has listed.
pub(crate) async fn look_again(worker: &Rc<Worker>, era: Era, kind: ListKind, spread: Spread) {
    let _ = merged_list(worker, era, kind, spread.for_list(kind)).await;
}

async fn merged_list(worker: &Rc<Worker>, era: Era, kind: ListKind, spread: Spread) -> FanAnswer {
    let view = spread.view.clone();
    let answers = spread.ask_all(worker, What::Pages(kind)).await;
    if session_lost(era, &answers) {
        return SESSION_LOST;
    }
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return NOBODY;
    }
    let listings: Vec<Listing> = answers
        .into_iter()
        .filter_map(|(upstream, answer)| {
            let pages = answer.ok()?.into_iter().map(|asked| asked.response).collect();
            Some(Listing { upstream, pages })
        })
        .collect();
    let mut scratch = worker.scratch.borrow_mut();
    let wanted = Wanted { kind, era, view: view.as_deref().map(|view| (view, &**worker)) };
    FanAnswer::Result(merge::merge_lists(&worker.upstreams, &mut scratch.parser, &wanted, &listings))
}

/// The results among the answers, with their upstreams.
fn results(worker: &Worker, answers: &Answers) -> Vec<(usize, serde_json::Value)> {
    let mut scratch = worker.scratch.borrow_mut();
    let mut results = Vec::new();
    for (index, answer) in answers {
        let Some(asked) = answer.as_ref().ok().and_then(|pages| pages.first()) else { continue };
        let Ok(envelope) = scratch.parser.parse(&asked.response) else { continue };
        results.extend(merge::result_of(&envelope, &asked.response).map(|result| (*index, result)));
    }
    results
}

/// A notification, or a request whose answer says nothing, once all have been told.
fn told(era: Era, answers: &Answers) -> FanAnswer {
    if session_lost(era, answers) {
        return SESSION_LOST;
    }
    if answers.iter().all(|(_, answer)| answer.is_err()) { NOBODY } else { FanAnswer::Told }
}

fn initialized(worker: &Worker, answers: &Answers) -> FanAnswer {
    let results = results(worker, answers);
    let values: Vec<_> = results.iter().map(|(_, result)| result.clone()).collect();
    let Some(merged) = merge::merge_initialize(&values) else { return NOBODY };
    let parts = results.iter().filter_map(|(index, _)| {
        let (_, answer) = answers.iter().find(|(of, _)| of == index)?;
        let asked = answer.as_ref().ok()?.first()?;
        Some((worker.upstreams.get(*index)?.tag, asked.session.clone().unwrap_or_default()))
    });
    FanAnswer::Initialized(merged.to_string().into_bytes(), parts.collect())
}

/// Asks one upstream after the other until one answers with a result; else the error that says most is the answer.
async fn in_turn(worker: &Rc<Worker>, spread: Spread) -> FanAnswer {
    let mut best: Option<(Option<i64>, u16, Vec<u8>)> = None;
    for (index, session) in &spread.parts {
        let timeout_ms = worker.upstreams.get(*index).map_or(0, |upstream| upstream.call_timeout_ms);
        let asked = spread.inner.ask_once(worker, *index, session.as_deref(), &spread.inner.raw, timeout_ms).await;
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
    best.map_or(NOBODY, |(error, status, bytes)| FanAnswer::Response { bytes, status, error })
}

/// Whether an upstream has answered that it does not know its part of the session.
fn session_lost(era: Era, answers: &Answers) -> bool {
    let lost = |answer: &Vec<crate::upstream::ask::Asked>| answer.iter().any(|asked| asked.status == 404);
    era != Era::Modern && answers.iter().any(|(_, answer)| answer.as_ref().is_ok_and(lost))
}
