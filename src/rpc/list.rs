//! Lists of tools, prompts and resources, taken apart so that several upstreams' lists can be merged by splicing bytes: schemas go
//! on as they came.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::envelope::Envelope;
use super::lookalike::is_lookalike;
use super::method::Method;
use super::scan;
use super::text::Text;
use crate::span::Span;

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// `tools/list`: `result.tools`, by `name`.
    Tools,
    /// `prompts/list`: `result.prompts`, by `name`.
    Prompts,
    /// `resources/list`: `result.resources`, by `uri`.
    Resources,
    /// `resources/templates/list`: `result.resourceTemplates`, by `uriTemplate`.
    ResourceTemplates,
}

impl ListKind {
    /// The list that a request of this method asks for.
    #[must_use]
    pub const fn of(method: Method) -> Option<Self> {
        match method {
            Method::ToolsList => Some(Self::Tools),
            Method::PromptsList => Some(Self::Prompts),
            Method::ResourcesList => Some(Self::Resources),
            Method::ResourcesTemplatesList => Some(Self::ResourceTemplates),
            _ => None,
        }
    }

    /// The result's member that holds the array, and the member that tells its items apart.
    #[must_use]
    pub const fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Tools => ("tools", "name"),
            Self::Prompts => ("prompts", "name"),
            Self::Resources => ("resources", "uri"),
            Self::ResourceTemplates => ("resourceTemplates", "uriTemplate"),
        }
    }
}

/// One member of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The whole object.
    pub span: Span,
    /// Its name or uri.
    pub key: Text,
    /// A key stands there that some parsers take for that of the name or uri.
    pub is_ambiguous: bool,
    /// A tool's `inputSchema`.
    pub input_schema: Option<Span>,
}

/// A page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Page {
    /// The array, brackets included.
    pub items: Span,
    /// `nextCursor`, when it is a string.
    pub next_cursor: Option<Text>,
    /// `ttlMs` as written.
    pub ttl_ms: Option<Span>,
    /// `cacheScope`, when it is a string.
    pub cache_scope: Option<Text>,
}

/// Takes the list in a checked response apart: items are appended to `out`, in order; members that are no objects or have no name
/// are left out, since no call could reach them. `raw` is what `envelope` was parsed from.
///
/// `None` when the response carries no such list.
pub fn split(envelope: &Envelope, raw: &[u8], kind: ListKind, out: &mut Vec<Item>) -> Option<Page> {
    let (list, key) = kind.keys();
    let mut page = Page::default();
    let mut found = false;
    for (name, value) in scan::members(raw, envelope.result?) {
        match &*name.decode(raw) {
            "nextCursor" => page.next_cursor = scan::text(raw, value),
            "ttlMs" => page.ttl_ms = Some(value),
            "cacheScope" => page.cache_scope = scan::text(raw, value),
            name if name == list && value.of(raw).first() == Some(&b'[') => {
                page.items = value;
                found = true;
            }
            _ => {}
        }
    }
    if !found {
        return None;
    }
    for span in scan::elements(raw, page.items) {
        let mut name = None;
        let mut input_schema = None;
        let mut is_ambiguous = false;
        for (member, value) in scan::members(raw, span) {
            if member.equals(raw, key.as_bytes()) {
                name = scan::text(raw, value);
            } else if kind == ListKind::Tools && member.equals(raw, b"inputSchema") {
                input_schema = Some(value);
            } else {
                is_ambiguous |= is_lookalike(&member.decode(raw), key);
            }
        }
        if let Some(key) = name {
            out.push(Item { span, key, is_ambiguous, input_schema });
        }
    }
    Some(page)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::rpc::Parser;

    fn take(raw: &str, kind: ListKind) -> Option<(Page, Vec<Item>)> {
        let envelope = Parser::new(64).parse(raw.as_bytes()).expect(raw);
        let mut items = Vec::new();
        split(&envelope, raw.as_bytes(), kind, &mut items).map(|page| (page, items))
    }

    #[test]
    fn a_page_of_tools() {
        let raw = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[ {"inputSchema":{"type":"object"},"name":"a"} ,
            {"title":"no name"}, 7, {"name":"\u0062","description":"x]},"}],"nextCursor":"c\n","ttlMs": 50,"cacheScope":"private"}}"#;
        let (page, items) = take(raw, ListKind::Tools).unwrap();
        let names: Vec<_> = items.iter().map(|item| item.key.decode(raw.as_bytes()).into_owned()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(items[0].input_schema.unwrap().of(raw.as_bytes()), br#"{"type":"object"}"#);
        assert_eq!(items[1].span.of(raw.as_bytes()), br#"{"name":"\u0062","description":"x]},"}"#);
        assert_eq!(page.next_cursor.unwrap().decode(raw.as_bytes()), "c\n");
        assert_eq!(page.ttl_ms.unwrap().of(raw.as_bytes()), b"50");
        assert_eq!(page.cache_scope.unwrap().decode(raw.as_bytes()), "private");
        assert!(raw.as_bytes()[page.items.start as usize..].starts_with(b"[ {"));
    }

    #[test]
    fn other_lists_and_none() {
        for (kind, key) in
            [(ListKind::Prompts, "name"), (ListKind::Resources, "uri"), (ListKind::ResourceTemplates, "uriTemplate")]
        {
            let raw = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"{}":[{{"{key}":"k"}}]}}}}"#, kind.keys().0);
            assert_eq!(take(&raw, kind).unwrap().1.len(), 1);
            assert_eq!(take(&raw, ListKind::Tools), None);
        }
        assert_eq!(take(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":{}}}"#, ListKind::Tools), None);
        assert_eq!(take(r#"{"jsonrpc":"2.0","id":1,"result":[]}"#, ListKind::Tools), None);
        assert_eq!(take(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}"#, ListKind::Tools), None);
        assert_eq!(take(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}"#, ListKind::Tools).unwrap().1, []);
    }
}
