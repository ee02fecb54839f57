//! The agent's identity in the call: an agent's token speaks for that agent alone.
//!
//! A `tools/call` whose `agentId` argument names another agent is refused. A missing one is to be put in, so that the
//! server behind knows on whose behalf it acts, unless the policy says that the tool must not get one.

use std::sync::Arc;

use crate::guard::{Denial, Principal};
use crate::rpc::{AgentId, Envelope, Method, Parser};

/// What is to be done with the call's `agentId`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentArgument {
    /// Nothing: no agent is calling, or it is there and right.
    Keep,
    /// Put this id in.
    Insert(Arc<str>),
}

/// Checks the `agentId` argument of a message against its sender. `parser` is the one that made `envelope`.
///
/// # Errors
/// [`Denial::ForeignAgent`] and [`Denial::AmbiguousAgent`].
pub fn check(principal: &Principal, envelope: &Envelope, parser: &Parser) -> Result<AgentArgument, Denial> {
    let Principal::Agent(own) = principal else { return Ok(AgentArgument::Keep) };
    if envelope.method != Method::ToolsCall {
        return Ok(AgentArgument::Keep);
    }
    match envelope.agent_id {
        AgentId::Absent => Ok(AgentArgument::Insert(own.clone())),
        AgentId::Text(text) => {
            let named = parser.text(text);
            if named == own.as_ref() {
                Ok(AgentArgument::Keep)
            } else {
                Err(Denial::ForeignAgent { own: own.clone(), named: plain_identifier(named) })
            }
        }
        AgentId::OtherType(_) | AgentId::Lookalike(_) => Err(Denial::AmbiguousAgent),
    }
}

/// The name, where it can be shown without becoming a way to put text into logs and models.
fn plain_identifier(name: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':' | b'@');
    (!name.is_empty() && name.len() <= 64 && name.bytes().all(plain)).then(|| name.to_owned())
}
