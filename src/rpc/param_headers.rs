//! [`ParamHeaders`]: which arguments of a tool are mirrored in `Mcp-Param-*` headers, and whether they agree.
//!
//! A tool's input schema marks an argument with `"x-mcp-header": "Region"`; a client then repeats its value in `Mcp-Param-Region`.
//! The mark may stand on a string, integer or boolean reached from the root through `properties` alone, under a name that is a
//! token and unique in the schema, case folded. One mark that breaks this makes the whole tool invalid; then nothing is compared,
//! and the header is forwarded untouched like any that no schema declares.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::bounds::{MAX_PARAM_HEADERS, MAX_SCHEMA_DEPTH};
use super::envelope::Envelope;
use super::era::{EraFault, Header};
use super::routing::{is_clean, is_integer, names, same_integer, trim};
use super::scan;
use crate::span::Span;

/// The prefix of the headers, lowercase.
const PREFIX: &[u8] = b"mcp-param-";

/// The declared type of a mirrored argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamType {
    /// As it is, or as base64.
    String,
    /// Decimal digits, compared as a number.
    Integer,
    /// `true` or `false`.
    Boolean,
}

/// One mirrored argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamHeader {
    /// The header's name without `Mcp-Param-`, as declared.
    pub suffix: Box<str>,
    /// The keys from `arguments` down to the value.
    pub path: Box<[Box<str>]>,
    /// Its declared type.
    pub kind: ParamType,
}

/// The `x-mcp-header` annotations of one tool's input schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamHeaders {
    declared: Vec<ParamHeader>,
}

/// An annotation that the standard does not allow: the whole tool is invalid, and nothing is compared for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid x-mcp-header annotation")]
pub struct InvalidAnnotation;

impl ParamHeaders {
    /// Reads the annotations of `schema`: one tool's `inputSchema` as it stands in a checked `tools/list` result `raw`.
    ///
    /// # Errors
    /// An annotation that is not allowed.
    pub fn from_schema(raw: &[u8], schema: Span) -> Result<Self, InvalidAnnotation> {
        // Most schemas have none: one search instead of a walk.
        if memchr::memmem::find(schema.of(raw), b"x-mcp-header").is_none() && !schema.of(raw).contains(&b'\\') {
            return Ok(Self::default());
        }
        let mut found = Self::default();
        found.walk(raw, schema, &mut Vec::new(), true, 0)?;
        Ok(found)
    }

    /// Declares the tool nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.declared.is_empty()
    }

    /// What it declares.
    #[must_use]
    pub fn declared(&self) -> &[ParamHeader] {
        &self.declared
    }

    /// One schema: `path` leads to it, `reachable` through `properties` alone.
    fn walk(
        &mut self,
        raw: &[u8],
        schema: Span,
        path: &mut Vec<Box<str>>,
        reachable: bool,
        depth: usize,
    ) -> Result<(), InvalidAnnotation> {
        if depth > MAX_SCHEMA_DEPTH {
            return Err(InvalidAnnotation);
        }
        let depth = depth.saturating_add(1);
        for (key, value) in scan::members(raw, schema) {
            match &*key.decode(raw) {
                "x-mcp-header" if reachable && !path.is_empty() => self.annotate(raw, schema, value, path)?,
                "x-mcp-header" => return Err(InvalidAnnotation),
                "properties" => {
                    for (name, property) in scan::members(raw, value) {
                        path.push(name.decode(raw).into());
                        self.walk(raw, property, path, reachable, depth)?;
                        path.pop();
                    }
                }
                "$defs" | "definitions" | "patternProperties" | "dependentSchemas" => {
                    for (_, inner) in scan::members(raw, value) {
                        self.walk(raw, inner, path, false, depth)?;
                    }
                }
                "items"
                | "additionalItems"
                | "unevaluatedItems"
                | "contains"
                | "additionalProperties"
                | "unevaluatedProperties"
                | "propertyNames"
                | "contentSchema"
                | "if"
                | "then"
                | "else"
                | "not"
                | "allOf"
                | "anyOf"
                | "oneOf"
                | "prefixItems" => {
                    self.walk(raw, value, path, false, depth)?;
                    for inner in scan::elements(raw, value) {
                        self.walk(raw, inner, path, false, depth)?;
                    }
                }
                _ => {} // data (enum, const, default, examples) and keywords without schemas
            }
        }
        Ok(())
    }

    fn annotate(&mut self, raw: &[u8], schema: Span, value: Span, path: &[Box<str>]) -> Result<(), InvalidAnnotation> {
        let suffix = scan::text(raw, value).ok_or(InvalidAnnotation)?.decode(raw);
        let kind = scan::member(raw, schema, "type").and_then(|kind| scan::text(raw, kind)).ok_or(InvalidAnnotation)?;
        let kind = match &*kind.decode(raw) {
            "string" => ParamType::String,
            "integer" => ParamType::Integer,
            "boolean" => ParamType::Boolean,
            _ => return Err(InvalidAnnotation),
        };
        let unique = !self.declared.iter().any(|other| other.suffix.eq_ignore_ascii_case(&suffix));
        let token = !suffix.is_empty() && suffix.bytes().all(is_token);
        if !unique || !token || self.declared.len() >= MAX_PARAM_HEADERS {
            return Err(InvalidAnnotation);
        }
        self.declared.push(ParamHeader { suffix: suffix.into(), path: path.into(), kind });
        Ok(())
    }

    /// Compares the `Mcp-Param-*` headers of a 2026-07-28 `tools/call` with its arguments. `headers` are all fields of the
    /// request, names and values; what is not declared is not looked at.
    ///
    /// # Errors
    /// A header that is missing, repeated, unclean, different, or there without its argument: all -32020.
    pub fn check<'a>(
        &self,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        envelope: &Envelope,
        raw: &[u8],
    ) -> Result<(), EraFault> {
        for declared in &self.declared {
            let mut header = Header::Absent;
            for (name, value) in headers.clone() {
                if is_param(name, &declared.suffix) {
                    header.add(value);
                }
            }
            let header = match header {
                Header::Absent => None,
                Header::Repeated => return Err(EraFault::HeaderRepeated),
                Header::One(value) if is_clean(trim(value)) => Some(trim(value)),
                Header::One(_) => return Err(EraFault::HeaderCharacter),
            };
            compare(declared.kind, header, declared.argument(envelope, raw), raw)?;
        }
        Ok(())
    }

    /// Gives `put` the headers that a call must have: suffix and value, decoded. The other direction of [`ParamHeaders::check`].
    pub fn mirror(&self, envelope: &Envelope, raw: &[u8], mut put: impl FnMut(&str, &str)) {
        for declared in &self.declared {
            let Some(argument) = declared.argument(envelope, raw) else { continue };
            let written = argument.of(raw);
            if !carries(declared.kind, written) {
                continue;
            }
            match scan::text(raw, argument) {
                Some(text) => put(&declared.suffix, &text.decode(raw)),
                None => put(&declared.suffix, std::str::from_utf8(written).unwrap_or_default()),
            }
        }
    }
}

impl ParamHeader {
    /// The argument that it mirrors.
    fn argument(&self, envelope: &Envelope, raw: &[u8]) -> Option<Span> {
        let mut argument = envelope.arguments;
        for key in &self.path {
            argument = argument.and_then(|object| scan::member(raw, object, key));
        }
        argument
    }
}

/// Whether a header can carry this value.
fn carries(kind: ParamType, written: &[u8]) -> bool {
    match written.first() {
        Some(b'"' | b't' | b'f') => true,
        // A fraction has no rendering as an integer, and numbers are mirrored only where integers are declared.
        Some(b'-' | b'0'..=b'9') => kind == ParamType::Integer && is_integer(written),
        _ => false,
    }
}

/// RFC 9110, section 5.6.2.
const fn is_token(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

fn is_param(name: &[u8], suffix: &str) -> bool {
    name.split_at_checked(PREFIX.len()).is_some_and(|(prefix, rest)| {
        prefix.eq_ignore_ascii_case(PREFIX) && rest.eq_ignore_ascii_case(suffix.as_bytes())
    })
}

/// One header against its argument. Null counts as absent. A value that no header can carry must come without one: whether it is
/// right is for the server to say.
fn compare(kind: ParamType, header: Option<&[u8]>, argument: Option<Span>, raw: &[u8]) -> Result<(), EraFault> {
    let written = argument.map_or(&b"null"[..], |span| span.of(raw));
    let text = argument.and_then(|span| scan::text(raw, span));
    let carries = carries(kind, written);
    let Some(header) = header else {
        return if carries { Err(EraFault::ParamMissing) } else { Ok(()) };
    };
    let same = match text {
        Some(text) => names(header, text, raw),
        None if kind == ParamType::Integer && carries && written != b"true" && written != b"false" => {
            same_integer(header, written)
        }
        None => carries && header == written,
    };
    if same { Ok(()) } else { Err(EraFault::ParamDiffers) }
}
