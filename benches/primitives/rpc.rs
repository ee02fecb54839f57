//! Messages: `src/rpc`.

use std::hint::black_box;

use ringwall::rpc::era::{self, Header, Mirrored};
use ringwall::rpc::list::{self, ListKind};
use ringwall::rpc::reply::{self, EchoId, ToolRefusal};
use ringwall::rpc::{Envelope, ParamHeaders, Parser, splice};

use crate::case::Case;
use crate::inputs::{AGENT, ANSWER, CALL, MODERN_CALL, TOOLS, UNNAMED_CALL};

pub(crate) fn cases() -> Vec<Case> {
    let text = "x".repeat(64 << 10);
    let large = CALL.replace("reminders", &text);
    vec![
        envelope("rpc/envelope, call of 2025-11-25", CALL.to_owned()),
        envelope("rpc/envelope, call of 2026-07-28", MODERN_CALL.to_owned()),
        envelope("rpc/envelope, call of 64 KiB", large),
        envelope("rpc/envelope, answer", ANSWER.to_owned()),
        decided("rpc/era, 2025-11-25", CALL, b"2025-11-25"),
        decided("rpc/era and mirrored headers, 2026-07-28", MODERN_CALL, b"2026-07-28"),
        param_headers(),
        schema(),
        id_spliced(),
        agent_spliced(),
        refusal(),
    ]
}

pub(crate) fn parsed(raw: &str) -> Envelope {
    Parser::new(64).parse(raw.as_bytes()).expect("the inputs are messages")
}

fn envelope(name: &'static str, raw: String) -> Case {
    let mut parser = Parser::new(64);
    Case::new(name, raw.len(), move || parser.parse(black_box(raw.as_bytes())).is_ok())
}

fn decided(name: &'static str, raw: &'static str, version: &'static [u8]) -> Case {
    let envelope = parsed(raw);
    let mirrored =
        Mirrored { version: Header::One(version), method: Header::One(b"tools/call"), name: Header::One(b"send_sms") };
    Case::new(name, 0, move || {
        era::decide(black_box(&mirrored), black_box(&envelope), black_box(raw.as_bytes())).is_ok()
    })
}

/// The `inputSchema` of [`TOOLS`]. With a parser and a list that are kept: what a new one allocates depends on what was allocated before.
fn declared(parser: &mut Parser, items: &mut Vec<list::Item>, raw: &[u8]) -> Option<ParamHeaders> {
    let envelope = parser.parse(raw).ok()?;
    items.clear();
    list::split(&envelope, raw, ListKind::Tools, items)?;
    ParamHeaders::from_schema(raw, items.first()?.input_schema?).ok().filter(|found| found.declared().len() == 2)
}

fn param_headers() -> Case {
    let declared =
        declared(&mut Parser::new(64), &mut Vec::new(), TOOLS.as_bytes()).expect("the schema has annotations");
    let envelope = parsed(MODERN_CALL);
    let fields: Vec<(&[u8], &[u8])> = vec![
        (b"Host", b"127.0.0.1:8080"),
        (b"Content-Type", b"application/json"),
        (b"Mcp-Name", b"send_sms"),
        (b"Mcp-Param-To", b"+14155550123"),
        (b"Mcp-Param-Agent", b"agent-7f3a"),
    ];
    Case::new("rpc/parameter headers, two", 0, move || {
        declared.check(black_box(&fields).iter().copied(), black_box(&envelope), MODERN_CALL.as_bytes()).is_ok()
    })
}

fn schema() -> Case {
    let (mut parser, mut items) = (Parser::new(64), Vec::new());
    Case::new("rpc/page of tools with parameter headers", TOOLS.len(), move || {
        declared(&mut parser, &mut items, black_box(TOOLS.as_bytes())).is_some()
    })
}

fn id_spliced() -> Case {
    let span = parsed(CALL).id.expect("a request has an id").span;
    let mut out = Vec::with_capacity(1024);
    Case::new("rpc/id spliced", CALL.len(), move || {
        out.clear();
        splice::splice(black_box(CALL.as_bytes()), &[(span, b"123456")], &mut out).is_ok()
    })
}

fn agent_spliced() -> Case {
    let envelope = parsed(UNNAMED_CALL);
    let (mut insert, mut out) = (Vec::with_capacity(64), Vec::with_capacity(1024));
    Case::new("rpc/agent's id spliced", UNNAMED_CALL.len(), move || {
        out.clear();
        let raw = black_box(UNNAMED_CALL.as_bytes());
        let Some(place) = splice::agent_id(&envelope, raw, AGENT, &mut insert) else { return false };
        splice::splice(raw, &[(place, &insert)], &mut out).is_ok()
    })
}

fn refusal() -> Case {
    let mut out = Vec::with_capacity(1024);
    let refusal = ToolRefusal {
        error: "Token for agent \"alpha\" cannot access agent \"beta\"",
        rule: "agent-binding",
        field: Some("/params/arguments/agentId"),
        ..ToolRefusal::default()
    };
    Case::new("rpc/refusal written", 0, move || {
        out.clear();
        reply::tool_refusal(&mut out, EchoId::Raw(b"42"), black_box(&refusal), true);
        !out.is_empty()
    })
}
