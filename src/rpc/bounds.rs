//! The bounds of a JSON-RPC message besides its size and depth, which are settings, and why each is what it is.

/// Longest id in bytes as written, quotes included. Ids are kept while a call is in flight; UUIDs need 38.
pub const MAX_ID_BYTES: u32 = 1024;

/// Longest method name in bytes, decoded. The longest that MCP defines has 36.
pub const MAX_METHOD_BYTES: u32 = 256;

/// Most members of a batch (2025-03-26 only). One request must not become a thousand upstream calls.
pub const MAX_BATCH_MEMBERS: usize = 64;

/// Longest JSON pointer shown in an error text, bytes. It names where, never what; and with 96 an error stays below 128 bytes,
/// cheap to hand up.
pub const MAX_POINTER_BYTES: usize = 96;

/// Most bytes of a requested protocol version that an answer of ours echoes.
pub const MAX_VERSION_ECHO_BYTES: usize = 64;

/// Most `x-mcp-header` annotations of one tool. Each is a header that a client must send.
pub const MAX_PARAM_HEADERS: usize = 64;

/// Deepest nesting of a tool's input schema that is searched for annotations.
pub const MAX_SCHEMA_DEPTH: usize = 64;

/// Parsing memory above this many bytes is given back when a smaller message comes, so that one giant message does not
/// cost a worker its memory for ever.
pub const KEEP_SCRATCH_BYTES: usize = 256 * 1024;
