//! ringwall, with every guard on or with its guards off. What that means stands in `peers/ringwall.env` and `peers/ringwall-off.env`.

use std::io;

use super::super::upstream::answer;
use super::{Kind, Place, Prepared, Program, Target, existing, find};

/// The agent of `peers/ringwall.toml`, where the hash of its token stands.
const AGENT: &str = "loadtest";
const AGENT_TOKEN: &str = "loadtest-agent-token-0123456789abcdef";

pub(super) fn prepare(kind: Kind, place: &Place, port: u16) -> io::Result<Prepared> {
    let program = existing(&place.ringwall)?;
    let mut target = Target::plain(port);
    let home = if kind == Kind::Ringwall {
        target.token = AGENT_TOKEN;
        target.call.answer_end = with_agent(&target.call.arguments);
        let policy = include_str!("../../peers/ringwall.toml");
        let files = [(".env", include_str!("../../peers/ringwall.env")), ("ringwall.toml", policy)];
        place.home(kind, port, &files)?
    } else {
        let policy = include_str!("../../peers/ringwall-off.toml");
        let files = [(".env", include_str!("../../peers/ringwall-off.env")), ("ringwall-off.toml", policy)];
        place.home(kind, port, &files)?
    };
    let version = find::version(&program, ["--version"]);
    Ok(Prepared { program: Program::new(program, ["serve"]), home, version, target })
}

/// The end of the answer to arguments into which the gateway has put the agent's id, in front of the others.
fn with_agent(arguments: &[u8]) -> Vec<u8> {
    let rest = arguments.strip_prefix(b"{").unwrap_or(arguments);
    let spliced = [format!("{{\"agentId\":\"{AGENT}\",").as_bytes(), rest].concat();
    let mut end = Vec::new();
    answer::write_end(&mut end, &spliced);
    end
}
