//! What a principal is shown of a server's answer: of a list of tools, those that it may use ([`crate::guard::permission`]).
//!
//! An answer to `tools/list` is looked for where it may come: as the answer to the call, and on a session's own stream, where servers answer a call
//! whose stream has broken. What a server tells of its tools in any other way is the server's own word.

use crate::guard::Access;
use crate::rpc::cut::{self, Unclear};
use crate::rpc::{Envelope, Kind, Method, Parser, splice};
use crate::wire::sse::read_event;

/// Whether what comes back for such a message may be a list of tools.
pub(crate) fn may_list_tools(kind: Kind, method: Method) -> bool {
    kind != Kind::Request || method == Method::ToolsList
}

/// A checked message of the upstream with this name, as it is shown; `None`: as it is.
///
/// # Errors
/// [`Unclear`]: it is shown to nobody.
pub(crate) fn checked(
    access: &Access,
    upstream: &str,
    envelope: &Envelope,
    raw: &[u8],
) -> Result<Option<Vec<u8>>, Unclear> {
    let mut edits = Vec::new();
    cut::keep_tools(envelope, raw, |tool| access.allows(upstream, tool), &mut edits)?;
    if edits.is_empty() {
        return Ok(None);
    }
    let mut shown = Vec::with_capacity(raw.len());
    splice::splice(raw, &edits, &mut shown).map_err(|_| Unclear)?;
    Ok(Some(shown))
}

/// Likewise, of a message that was not parsed yet. What is no message is [`Unclear`].
///
/// # Errors
/// [`Unclear`].
pub(crate) fn message(
    parser: &mut Parser,
    access: &Access,
    upstream: &str,
    raw: &[u8],
) -> Result<Option<Vec<u8>>, Unclear> {
    let envelope = parser.parse(raw).map_err(|_| Unclear)?;
    checked(access, upstream, &envelope, raw)
}

/// Likewise, of an event. Its other fields stay.
///
/// # Errors
/// [`Unclear`].
pub(crate) fn event(
    parser: &mut Parser,
    access: &Access,
    upstream: &str,
    event: &[u8],
) -> Result<Option<Vec<u8>>, Unclear> {
    let mut joined = Vec::new();
    let Some(data) = read_event(event, &mut joined).data.filter(|data| !data.is_empty()) else { return Ok(None) };
    let Some(shown) = message(parser, access, upstream, data)? else { return Ok(None) };
    let mut out = Vec::with_capacity(event.len());
    let is_end = |byte: &u8| matches!(*byte, b'\n' | b'\r');
    let is_data = |line: &[u8]| line == b"data" || line.starts_with(b"data:");
    for line in event.split(is_end).filter(|line| !line.is_empty() && !is_data(line)) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    for line in shown.split(|byte| *byte == b'\n') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    Ok(Some(out))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::guard::{Permissions, Principal};
    use crate::settings::Policy;
    use crate::settings::policy::{Principals, ToolAccess, ToolPattern};

    #[test]
    fn an_event_keeps_its_fields_and_its_lines() {
        let tools = vec![ToolPattern { upstream: None, tool: "b".into() }];
        let door = ToolAccess { tools: Some(tools), deny_tools: Vec::new() };
        let policy = Policy { principals: Principals { door, ..Principals::default() }, ..Policy::default() };
        let permissions = Permissions::new(&policy);
        let access = permissions.of(&Principal::Door).unwrap();
        let show = |text: &str| {
            let shown = event(&mut Parser::new(8), access, "up", text.as_bytes());
            shown.map(|shown| shown.map(|bytes| String::from_utf8(bytes).unwrap()))
        };
        let list = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"},{"name":"b"}]}}"#;
        let left = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"b"}]}}"#;
        assert_eq!(
            show(&format!(": hello\nevent: message\nid: 7\nretry: 5\ndata: {list}\n\n")),
            Ok(Some(format!(": hello\nevent: message\nid: 7\nretry: 5\ndata: {left}\n\n")))
        );
        let (first, second) = list.split_at(24);
        assert_eq!(
            show(&format!("data: {first}\r\ndata:{second}\r\nid: 8\r\n\r\n")),
            Ok(Some(format!("id: 8\ndata: {first}\ndata: {}\n\n", &left[24..])))
        );
        for as_it_is in [": comment\n\n", "retry: 5\n\n", "id: 3\ndata:\n\n", &format!("data: {left}\n\n")] {
            assert_eq!(show(as_it_is), Ok(None), "{as_it_is}");
        }
        assert_eq!(show("data: [1]\n\n"), Err(Unclear));
    }
}
