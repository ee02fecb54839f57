//! Which era a request speaks, and whether its mirrored headers tell the truth.
//!
//! Policy is decided from the body. The headers of 2026-07-28 only repeat it, for intermediaries that cannot read bodies; one that
//! disagrees with its body is an attempt to be two requests at once, so it is refused. The order of the checks is that of the
//! reference implementation: `_meta`, its version against the header, `Mcp-Method`, `Mcp-Name`, then whether the version is served.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::bounds::MAX_VERSION_ECHO_BYTES;
use super::envelope::{Envelope, Kind, Member, Presence};
use super::reply::push_string;
use super::routing::{is_clean, names, trim};

/// The version of the stateless era.
pub const MODERN: &str = "2026-07-28";

/// A field of the request: how often it came, and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Header<'a> {
    /// Not there.
    #[default]
    Absent,
    /// Once.
    One(&'a [u8]),
    /// More than once: readers of the first and of the last copy would disagree.
    Repeated,
}

impl<'a> Header<'a> {
    /// Takes one more copy of the field in.
    pub fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::One(value),
            _ => Self::Repeated,
        };
    }

    /// The trimmed value; `None` when absent.
    fn value(self) -> Result<Option<&'a [u8]>, EraFault> {
        match self {
            Self::Absent => Ok(None),
            Self::Repeated => Err(EraFault::HeaderRepeated),
            Self::One(value) => {
                let value = trim(value);
                if is_clean(value) { Ok(Some(value)) } else { Err(EraFault::HeaderCharacter) }
            }
        }
    }
}

/// The mirrored headers of a request, as received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mirrored<'a> {
    /// `MCP-Protocol-Version`.
    pub version: Header<'a>,
    /// `Mcp-Method`.
    pub method: Header<'a>,
    /// `Mcp-Name`.
    pub name: Header<'a>,
}

/// A revision of the session era.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// 2024-11-05.
    V2024_11_05,
    /// 2025-03-26, assumed where no version is given.
    V2025_03_26,
    /// 2025-06-18.
    V2025_06_18,
    /// 2025-11-25.
    V2025_11_25,
}

impl Revision {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25];

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
        }
    }

    fn from_bytes(version: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.as_str().as_bytes() == version)
    }
}

/// What a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2026-07-28: stateless, POST only.
    Modern,
    /// 2024-11-05 … 2025-11-25: initialize, sessions, SSE.
    Legacy(Revision),
}

/// Why a request's era or headers were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EraFault {
    /// A version that is not served.
    UnsupportedVersion,
    /// A mirrored header came more than once.
    HeaderRepeated,
    /// A mirrored header has a character outside of visible ASCII, space and tab.
    HeaderCharacter,
    /// `MCP-Protocol-Version` is missing where `_meta` names a version.
    VersionMissing,
    /// `MCP-Protocol-Version` differs from `_meta`.
    VersionDiffers,
    /// `Mcp-Method` is missing.
    MethodMissing,
    /// `Mcp-Method` differs from the body.
    MethodDiffers,
    /// `Mcp-Name` is missing.
    NameMissing,
    /// `Mcp-Name` differs from the body.
    NameDiffers,
    /// A declared argument is there without its `Mcp-Param-*`.
    ParamMissing,
    /// An `Mcp-Param-*` without its argument, or with another value.
    ParamDiffers,
    /// `params._meta` is missing.
    MetaMissing,
    /// `_meta` has no protocol version, or not as a string.
    MetaVersion,
    /// `_meta` has no client capabilities, or not as an object.
    MetaCapabilities,
    /// `_meta` has client information that is no object.
    MetaClientInfo,
    /// A batch where none is allowed.
    Batch,
    /// A response posted to an era without requests from the server.
    PostedResponse,
    /// A method that 2026-07-28 has taken out.
    RemovedMethod,
}

impl EraFault {
    /// The JSON-RPC error code.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::UnsupportedVersion => -32022,
            Self::MetaMissing | Self::MetaVersion | Self::MetaCapabilities | Self::MetaClientInfo => -32602,
            Self::Batch | Self::PostedResponse => -32600,
            Self::RemovedMethod => -32601,
            _ => -32020,
        }
    }

    /// The HTTP status: 404 for a removed method, else 400.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::RemovedMethod => 404,
            _ => 400,
        }
    }

    /// The message of the error answer.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::UnsupportedVersion => "Unsupported protocol version",
            Self::HeaderRepeated => "Header mismatch: a mirrored header came more than once",
            Self::HeaderCharacter => "Header mismatch: invalid character in a mirrored header",
            Self::VersionMissing => "Header mismatch: MCP-Protocol-Version is missing",
            Self::VersionDiffers => "Header mismatch: MCP-Protocol-Version differs from _meta",
            Self::MethodMissing => "Header mismatch: Mcp-Method is missing",
            Self::MethodDiffers => "Header mismatch: Mcp-Method differs from the body",
            Self::NameMissing => "Header mismatch: Mcp-Name is missing",
            Self::NameDiffers => "Header mismatch: Mcp-Name differs from the body",
            Self::ParamMissing => "Header mismatch: an argument is sent without its Mcp-Param header",
            Self::ParamDiffers => "Header mismatch: an Mcp-Param header differs from its argument",
            Self::MetaMissing => "Invalid params: _meta is required",
            Self::MetaVersion => "Invalid params: _meta must have io.modelcontextprotocol/protocolVersion, a string",
            Self::MetaCapabilities => {
                "Invalid params: _meta must have io.modelcontextprotocol/clientCapabilities, an object"
            }
            Self::MetaClientInfo => "Invalid params: io.modelcontextprotocol/clientInfo must be an object",
            Self::Batch => "Invalid request: batches are not supported in this protocol version",
            Self::PostedResponse => "Invalid request: responses are not accepted in this protocol version",
            Self::RemovedMethod => "Method not found",
        }
    }

    /// A short stable name for metrics and audit.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self.code() {
            -32022 => "protocol-version",
            -32602 => "request-meta",
            -32600 => "message-kind",
            -32601 => "removed-method",
            _ => "header-mismatch",
        }
    }

    /// Appends the `data` of the error answer (raw JSON) to `out` where the standard asks for one; `false` where it does not.
    /// `version` is the request's header. The standard wants the requested version echoed: at most [`MAX_VERSION_ECHO_BYTES`]
    /// of it are, visible ASCII only.
    pub fn write_data(self, version: Header<'_>, out: &mut Vec<u8>) -> bool {
        if self != Self::UnsupportedVersion {
            return false;
        }
        let requested = match version {
            Header::One(value) if is_clean(value) => trim(value),
            _ => b"",
        };
        let requested = requested.get(..MAX_VERSION_ECHO_BYTES).unwrap_or(requested);
        out.extend_from_slice(b"{\"supported\":[");
        push_string(out, MODERN);
        out.extend_from_slice(b"],\"requested\":");
        push_string(out, std::str::from_utf8(requested).unwrap_or(""));
        out.push(b'}');
        true
    }
}

/// Decides the era of a POST and checks the mirrored headers against the body.
///
/// A known version of the session era in the header, or no version anywhere, is that era: its mirrored headers are not looked at,
/// since clients send them early. Everything else must be a well-formed 2026-07-28 message.
///
/// # Errors
/// See [`EraFault`].
pub fn decide(mirrored: &Mirrored<'_>, envelope: &Envelope, raw: &[u8]) -> Result<Era, EraFault> {
    let version = mirrored.version.value()?;
    let Some(version) = version else {
        return match envelope.meta_version {
            Member::Absent => Ok(Era::Legacy(Revision::V2025_03_26)),
            _ => Err(EraFault::VersionMissing),
        };
    };
    if let Some(revision) = Revision::from_bytes(version) {
        return match envelope.meta_version {
            Member::Absent => Ok(Era::Legacy(revision)),
            Member::Text(text) if text.equals(raw, version) => Ok(Era::Legacy(revision)),
            _ => Err(EraFault::VersionDiffers),
        };
    }
    let served = version == MODERN.as_bytes();
    match envelope.kind {
        Kind::Response | Kind::ErrorResponse => return Err(EraFault::PostedResponse),
        Kind::Notification => {
            // Which headers a notification must carry is left open; what it does carry about its version must agree.
            if envelope.meta_version.text().is_some_and(|text| !text.equals(raw, version)) {
                return Err(EraFault::VersionDiffers);
            }
            return if served { Ok(Era::Modern) } else { Err(EraFault::UnsupportedVersion) };
        }
        Kind::Request => {}
    }
    if !served && envelope.meta_version == Member::Absent {
        return Err(EraFault::UnsupportedVersion); // a session client with a wrong version: tell it so
    }
    check_meta(envelope)?;
    if !envelope.meta_version.text().is_some_and(|text| text.equals(raw, version)) {
        return Err(EraFault::VersionDiffers);
    }
    check_routing(mirrored, envelope, raw)?;
    if !served {
        return Err(EraFault::UnsupportedVersion);
    }
    if envelope.method.removed_in_modern() {
        return Err(EraFault::RemovedMethod);
    }
    Ok(Era::Modern)
}

/// Decides the era of a message that came over a door without headers: what its `_meta` says, else that of its session.
///
/// # Errors
/// See [`EraFault`]; never one about headers.
pub fn decide_bare(envelope: &Envelope, raw: &[u8], session: Revision) -> Result<Era, EraFault> {
    let version = match envelope.meta_version {
        Member::Absent => return Ok(Era::Legacy(session)),
        Member::OtherType(_) => return Err(EraFault::MetaVersion),
        Member::Text(text) => text,
    };
    if let Some(revision) = Revision::ALL.into_iter().find(|known| version.equals(raw, known.as_str().as_bytes())) {
        return Ok(Era::Legacy(revision));
    }
    let served = version.equals(raw, MODERN.as_bytes());
    if envelope.kind == Kind::Request {
        check_meta(envelope)?;
    }
    match envelope.kind {
        _ if !served => Err(EraFault::UnsupportedVersion),
        Kind::Response | Kind::ErrorResponse => Err(EraFault::PostedResponse),
        Kind::Request if envelope.method.removed_in_modern() => Err(EraFault::RemovedMethod),
        _ => Ok(Era::Modern),
    }
}

/// What every request must say in `_meta`.
fn check_meta(envelope: &Envelope) -> Result<(), EraFault> {
    if envelope.meta.is_none() {
        return Err(EraFault::MetaMissing);
    }
    if envelope.meta_version.text().is_none() {
        return Err(EraFault::MetaVersion);
    }
    if !matches!(envelope.client_capabilities, Presence::Object(_)) {
        return Err(EraFault::MetaCapabilities);
    }
    if matches!(envelope.client_info, Presence::OtherType(_)) {
        return Err(EraFault::MetaClientInfo);
    }
    Ok(())
}

/// `Mcp-Method` and `Mcp-Name`. The sentinel is defined for names alone.
fn check_routing(mirrored: &Mirrored<'_>, envelope: &Envelope, raw: &[u8]) -> Result<(), EraFault> {
    let method = mirrored.method.value()?.ok_or(EraFault::MethodMissing)?;
    if !envelope.method_text.is_some_and(|text| text.equals(raw, method)) {
        return Err(EraFault::MethodDiffers);
    }
    if !envelope.method.may_have_name_header() {
        return Ok(());
    }
    match mirrored.name.value()? {
        Some(name) if envelope.name.is_some_and(|text| names(name, text, raw)) => Ok(()),
        Some(_) => Err(EraFault::NameDiffers),
        None if envelope.method.needs_name_header() => Err(EraFault::NameMissing),
        None => Ok(()),
    }
}

/// Decides whether a batch may be split: only where the version is 2025-03-26, or none is given.
///
/// # Errors
/// [`EraFault::Batch`] elsewhere.
pub fn decide_batch(version: Header<'_>) -> Result<Era, EraFault> {
    match decide_bodiless(version)? {
        era @ Era::Legacy(Revision::V2025_03_26) => Ok(era),
        _ => Err(EraFault::Batch),
    }
}

/// Decides the era of a GET or DELETE, from the header alone. [`Era::Modern`] means 405.
///
/// # Errors
/// A version that is not served, or a header that came twice.
pub fn decide_bodiless(version: Header<'_>) -> Result<Era, EraFault> {
    match version.value()? {
        None => Ok(Era::Legacy(Revision::V2025_03_26)),
        Some(version) if version == MODERN.as_bytes() => Ok(Era::Modern),
        Some(version) => Revision::from_bytes(version).map(Era::Legacy).ok_or(EraFault::UnsupportedVersion),
    }
}
