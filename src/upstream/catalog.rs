//! What is known of an upstream's tools: learned from the lists that pass by, never asked for on a message's way.
//!
//! It serves the check of `Mcp-Param-*` headers, whose meaning only the tool's schema tells (MCP 2026-07-28, "Custom headers"). A tool
//! that has not been seen is not checked; the upstream does that itself.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use super::{Carried, Message, Upstreams, outgoing};
use crate::bounds;
use crate::rpc::era::EraFault;
use crate::rpc::list::{self, ListKind};
use crate::rpc::{Envelope, Era, Kind, Method, ParamHeaders};

/// The tools of one upstream that declare parameter headers.
#[derive(Default)]
pub(crate) struct Catalog {
    tools: RefCell<HashMap<Box<str>, ParamHeaders>>,
}

impl Catalog {
    /// Learns from a page of `tools/list`. `tell` gets the names on it.
    pub(crate) fn learn(&self, envelope: &Envelope, raw: &[u8], tell: impl FnOnce(&[Cow<'_, str>])) {
        let mut items = Vec::new();
        if list::split(envelope, raw, ListKind::Tools, &mut items).is_none() {
            return;
        }
        let names: Vec<_> = items.iter().take(bounds::MAX_CATALOG_ENTRIES).map(|item| item.key.decode(raw)).collect();
        tell(&names);
        let mut tools = self.tools.borrow_mut();
        if tools.len() + items.len() > bounds::MAX_CATALOG_ENTRIES {
            tools.clear();
        }
        for (item, name) in items.iter().zip(names) {
            // A schema with an invalid annotation is as good as one without: the standard has nothing to compare then.
            match item.input_schema.map(|schema| ParamHeaders::from_schema(raw, schema)) {
                Some(Ok(declared)) if !declared.is_empty() => {
                    tools.insert(name.into(), declared);
                }
                _ => {
                    tools.remove(name.as_ref());
                }
            }
        }
    }
}

impl Upstreams {
    /// Learns from an answer to `tools/list`.
    pub(crate) fn learn_tools(&self, index: usize, envelope: &Envelope, raw: &[u8]) {
        if let Some(upstream) = self.get(index) {
            upstream.catalog.learn(envelope, raw, |names| self.tools.list(index, names.iter()));
        }
    }
}

impl Catalog {
    /// Compares the `Mcp-Param-*` headers of a call with its arguments, where the tool's schema is known.
    pub(crate) fn check(&self, message: &Message<'_>, tool: &str) -> Result<(), EraFault> {
        let calls_a_tool = message.envelope.kind == Kind::Request && message.envelope.method == Method::ToolsCall;
        if message.era != Era::Modern || !calls_a_tool {
            return Ok(());
        }
        // A message without a head has nothing that could differ.
        let Carried::Head { head, bytes } = message.carried else { return Ok(()) };
        let tools = self.tools.borrow();
        let Some(declared) = tools.get(tool) else { return Ok(()) };
        let headers = head.fields.iter().map(|field| (field.name.of(bytes), field.value.of(bytes)));
        declared.check(headers, message.envelope, message.raw)
    }

    /// Appends the `Mcp-Param-*` headers of a call that came without a head, as far as the tool's schema is known. `renamed` is the
    /// upstream's own name of the tool where the client's differs.
    pub(crate) fn mirror(&self, message: &Message<'_>, renamed: Option<&str>, out: &mut Vec<u8>) {
        let calls_a_tool = message.envelope.kind == Kind::Request && message.envelope.method == Method::ToolsCall;
        let Carried::Bare(bare) = message.carried else { return };
        if message.era != Era::Modern || !calls_a_tool {
            return;
        }
        let tools = self.tools.borrow();
        let Some(declared) = renamed.or(bare.name).and_then(|tool| tools.get(tool)) else { return };
        declared.mirror(message.envelope, message.raw, |suffix, value| {
            outgoing::put_encoded(out, &format!("Mcp-Param-{suffix}"), value);
        });
    }
}
