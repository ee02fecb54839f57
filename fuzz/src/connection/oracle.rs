//! What the client's bytes say by the strict parser, and whether what became of them is right.

use ringwall::rpc::{Parser, parser};
use ringwall::wire::http1::Progress;
use ringwall::wire::http1::body::{BodyDecoder, BodyError, Framing};
use ringwall::wire::http1::request::{Body, Method, RequestHead, parse_request};
use ringwall::wire::http1::response::{ResponseHead, parse_response};

use super::play::{Forwarded, Seen};
use super::world::{AGENT_TOKEN, CREDENTIAL, DOOR_TOKEN, MAX_REQUEST_BYTES, UPSTREAM_SESSION};
use super::{HALF_CLOSES, Input, LEAVES, SEVERAL};

/// Most requests that several upstreams may see because of one: two upstreams, 64 pages each, a look at the lists and the call.
const FAN_OUT: usize = 2 * 2 * 64 + 2;

/// What the client's bytes say.
pub(super) struct Sent {
    /// The whole requests, up to the one that ends the connection.
    pub(super) requests: Vec<Request>,
    /// Whether a request that is not whole, or is none, stands behind them, and whether it is a HEAD as far as can be told.
    then_is_head: bool,
    /// How often a token stands elsewhere than in `Authorization`.
    strays: usize,
}

/// One request of the client.
pub(super) struct Request {
    is_head: bool,
    /// The messages that may go on from it; `None` for the body of a request that has none.
    messages: Vec<Option<Vec<u8>>>,
    is_agent: bool,
}

/// One answer that the client got.
pub(super) struct Answer {
    pub(super) is_whole: bool,
    status: u16,
    closes: bool,
    session: Option<Vec<u8>>,
}

impl Sent {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut sent = Self { requests: Vec::new(), then_is_head: false, strays: tokens(bytes) };
        let mut rest = bytes;
        loop {
            let mut head = RequestHead::default();
            if parse_request(rest, 0, &mut head) != Ok(Progress::Complete) {
                return sent;
            }
            sent.strays -= tokens(head.known.authorization.map_or(&[][..], |span| span.of(rest)));
            let framing = match head.body {
                Body::None => Framing::Length(0),
                Body::Length(length) => Framing::Length(length),
                Body::Chunked => Framing::Chunked,
            };
            sent.then_is_head = head.method == Method::Head;
            let Ok((body, Some(taken))) = decode(framing, &rest[head.len as usize..], MAX_REQUEST_BYTES) else {
                return sent;
            };
            sent.then_is_head = false;
            sent.requests.push(Request::read(&head, rest, body));
            rest = &rest[head.len as usize + taken..];
            if !head.keep_alive {
                return sent;
            }
        }
    }
}

impl Request {
    fn read(head: &RequestHead, buf: &[u8], body: Vec<u8>) -> Self {
        let presented = |token: &str| {
            let value = head.known.authorization.map_or(&[][..], |span| span.of(buf));
            value.len() > 7
                && value[..7].eq_ignore_ascii_case(b"Bearer ")
                && value[7..].trim_ascii() == token.as_bytes()
        };
        let is_agent = presented(AGENT_TOKEN);
        let may_call = head.path(buf) == b"/mcp" && (is_agent || presented(DOOR_TOKEN));
        let messages = match head.method {
            Method::Post if may_call && parser::is_batch(&body) => {
                let mut members = Vec::new();
                let _ = Parser::new(64).parse_batch(&body, &mut members);
                members.iter().map(|member| Some(member.of(&body).to_vec())).collect()
            }
            Method::Post if may_call => vec![Some(body)],
            Method::Get | Method::Delete if may_call => vec![None],
            _ => Vec::new(),
        };
        Self { is_head: head.method == Method::Head, messages, is_agent }
    }
}

fn tokens(bytes: &[u8]) -> usize {
    [DOOR_TOKEN, AGENT_TOKEN].iter().map(|token| memchr::memmem::find_iter(bytes, token.as_bytes()).count()).sum()
}

/// A body, and how many bytes of `buf` it took if it is whole.
pub(super) fn decode(framing: Framing, buf: &[u8], max: u64) -> Result<(Vec<u8>, Option<usize>), BodyError> {
    let mut decoder = BodyDecoder::new(framing, max)?;
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let step = decoder.decode(&buf[at..])?;
        body.extend_from_slice(step.data.of(&buf[at..]));
        at += step.consumed;
        if step.done {
            return Ok((body, Some(at)));
        }
        if step.consumed == 0 {
            return Ok((body, None));
        }
    }
}

/// The answers in what the client got, checked to be well-formed. The last may be cut short.
pub(super) fn answers(received: &[u8], sent: &Sent) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut rest = received;
    while !rest.is_empty() {
        let said_last = answers.last().is_some_and(|answer| answer.closes);
        assert!(!said_last, "bytes behind the last answer: {}", rest.escape_ascii());
        let is_head = sent.requests.get(answers.len()).map_or(sent.then_is_head, |request| request.is_head);
        let mut head = ResponseHead::default();
        let parsed = parse_response(rest, 0, is_head, &mut head);
        let progress = parsed.unwrap_or_else(|bad| panic!("an answer that is none: {bad}: {}", rest.escape_ascii()));
        if progress == Progress::Partial {
            answers.push(Answer { is_whole: false, status: 0, closes: false, session: None });
            return answers;
        }
        let body = &rest[head.len as usize..];
        let decoded = decode(head.framing, body, u64::MAX);
        let (_, taken) = decoded.unwrap_or_else(|bad| panic!("a broken body: {bad}: {}", rest.escape_ascii()));
        let taken = taken.or((head.framing == Framing::UntilClose).then_some(body.len()));
        answers.push(Answer {
            is_whole: taken.is_some(),
            status: head.status,
            closes: !head.keep_alive,
            session: head.mcp_session_id.map(|span| span.of(rest).to_vec()),
        });
        let Some(taken) = taken else { return answers };
        rest = &body[taken..];
    }
    answers
}

/// Checks what was seen against what was sent.
pub(super) fn check(input: &Input, seen: &Seen) {
    let answers = answers(&seen.received, &seen.sent);
    check_answers(input, seen, &answers);
    check_forwarded(input, seen);
    let said: usize = input.answers.iter().map(|answer| tokens(answer)).sum();
    if seen.sent.strays + said == 0 {
        assert_eq!(tokens(&seen.received), 0, "a token comes back");
    }
}

fn check_answers(input: &Input, seen: &Seen, answers: &[Answer]) {
    let asked = seen.sent.requests.len();
    assert!(answers.len() <= asked + 1, "{} answers to {asked} requests", answers.len());
    if let Some(refusal) = answers.get(asked)
        && refusal.is_whole
    {
        assert!(refusal.status >= 400 && refusal.closes, "{} to what is no request", refusal.status);
    }
    for answer in answers {
        if let Some(session) = &answer.session {
            let is_sealed =
                session.len() > 40 && session.iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b));
            assert!(is_sealed, "an unsealed session id: {}", session.escape_ascii());
        }
    }
    if !input.has(LEAVES) && !input.has(HALF_CLOSES) && answers.len() < asked {
        let last = answers.last();
        let is_told = last.is_some_and(|answer| answer.closes || !answer.is_whole);
        assert!(is_told, "the connection ends without a word after {} of {asked} answers", answers.len());
    }
}

fn check_forwarded(input: &Input, seen: &Seen) {
    let made: usize = seen.sent.requests.iter().map(|request| request.messages.len()).sum();
    let several = input.has(SEVERAL);
    let most = if several { made * FAN_OUT } else { made };
    if seen.forwarded.len() > most {
        let raw: Vec<String> =
            seen.forwarded.iter().map(|forwarded| forwarded.raw.escape_ascii().to_string()).collect();
        panic!("{} calls at the upstream, {made} made: {raw:#?}", raw.len());
    }
    let mut messages: Vec<(&Request, Option<&Vec<u8>>)> = Vec::new();
    for request in &seen.sent.requests {
        messages.extend(request.messages.iter().map(|message| (request, message.as_ref())));
    }
    let mut next = messages.iter();
    for forwarded in &seen.forwarded {
        check_head(forwarded);
        let is_post = forwarded.head.method == Method::Post;
        if is_post {
            // The depth is one more where an agent's id is put in.
            let parsed = Parser::new(65).parse(&forwarded.body);
            assert!(parsed.is_ok(), "no message: {}", forwarded.body.escape_ascii());
        }
        if seen.sent.strays == 0 {
            assert_eq!(
                tokens(&forwarded.raw),
                0,
                "the client's token at the upstream: {}",
                forwarded.raw.escape_ascii()
            );
        }
        if !several {
            // In order, each at most once, and as it was received.
            let is_this = |(request, message): &&(&Request, Option<&Vec<u8>>)| match message {
                Some(message) => is_post && (request.is_agent || **message == forwarded.body),
                None => !is_post,
            };
            assert!(next.any(|message| is_this(&message)), "not what was sent: {}", forwarded.raw.escape_ascii());
        }
    }
}

fn check_head(forwarded: &Forwarded) {
    let Forwarded { raw, head, .. } = forwarded;
    assert!(matches!(head.method, Method::Post | Method::Get | Method::Delete));
    assert_eq!(head.target.of(raw), b"/mcp");
    let values = |name: &'static [u8]| head.values(raw, name).collect::<Vec<_>>();
    assert_eq!(values(b"authorization"), [CREDENTIAL.as_bytes()]);
    for name in
        [&b"cookie"[..], b"origin", b"proxy-authorization", b"x-forwarded-for", b"transfer-encoding", b"upgrade"]
    {
        assert!(values(name).is_empty(), "{} at the upstream", name.escape_ascii());
    }
    for session in values(b"mcp-session-id") {
        assert_eq!(session, UPSTREAM_SESSION.as_bytes());
    }
}
