//! Every bound of the data plane that is not a setting, in one place, each with its reason.
//!
//! The settings bound what an operator may want to change (`settings/tree.rs`), `wire::http1` what a head may be, `rpc::bounds`
//! what an envelope may be.

/// What a connection reads at once, and the smallest buffer it holds: a call with its head fits, and 10,000 busy
/// connections hold 80 MiB.
pub const READ_BUFFER_BYTES: usize = 8 * 1024;

/// What a connection that carries messages reads at first: most calls fit. It doubles, up to [`STREAM_BUFFER_BYTES`], while reads fill it.
pub const FIRST_READ_BYTES: usize = 1024;

/// A connection that has received nothing for this long gives its read buffer back.
pub const QUIET_MS: u64 = 1_000;

/// What waits in the kernel for a connection that has given its buffer back: enough to notice that it speaks again.
pub const PROBE_BYTES: usize = 16;

/// What is read at once of a long body or stream, once a first buffer was not enough.
pub const STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// Longest event of an upstream's event stream, and longest answer that is held whole (a list to merge, a batch member's
/// answer, a stdio server's line): an upstream must not fill our memory.
pub const MAX_HELD_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Longest answer of a tool that is looked into for its outcome; a longer one is recorded by its HTTP status alone.
pub const MAX_INSPECTED_ANSWER_BYTES: usize = 256 * 1024;

/// An idle pooled connection is closed after this. Below the 60 s that many servers keep one, above the 5 s of Node's, which
/// the pool notices by itself.
pub const UPSTREAM_IDLE_MS: u64 = 55_000;

/// A pooled connection rests for this long before it is used again: time for a server that closes after its answer
/// without saying so.
pub const UPSTREAM_REST_NS: u64 = 5_000_000;

/// How long it rests while it is not known whether its upstream closes after so many answers. A busy server may lose its core between its
/// answer and its close for longer than the common rest.
pub const UPSTREAM_TRIAL_NS: u64 = 20_000_000;

/// When connections of an upstream have been seen to live on after this many answers, it is taken for one that does not close
/// without saying so. Servers that count, count to 100 or 1,000, and most of them say so with their last answer. At one answer each
/// [`UPSTREAM_TRIAL_NS`] that takes ten seconds of traffic, in which connections have to take turns.
pub const UPSTREAM_PROOF: u32 = 512;

/// A connection that is found closed when it was idle for less than this was closed out of the blue: idle times are longer, and
/// the pools are swept every second.
pub const UPSTREAM_SUDDEN_NS: u64 = 2_000_000_000;

/// How long an upstream that closes out of the blue is not trusted again.
pub const UPSTREAM_DOUBT_NS: u64 = 60_000_000_000;

/// A call that has no answer after this is watched for a client that goes away. Before that, watching costs more than it
/// could save.
pub const WATCH_AFTER_MS: u64 = 100;

/// A client of a door that carries messages must say who it is within this (front-doors.md).
pub const AUTHENTICATION_MS: u64 = 10_000;

/// Pings and pongs of one WebSocket client within a second. Clients ping every few seconds; each ping costs an answer.
pub const MAX_CONTROL_FRAMES_PER_SECOND: u32 = 256;

/// Messages of one WebSocket client in a row that are refused because there were too many, until its connection is closed (1008). A client that
/// reads what it is told stops long before.
pub const TOO_MANY_IN_A_ROW: u32 = 64;

/// A comment goes out on an event stream that was silent for this long, so that nothing between us and the client cuts it.
pub const SSE_KEEP_ALIVE_MS: u64 = 15_000;

/// A WebSocket upstream that is silent for this long is asked whether it is there. Below the 60 s after which many proxies in
/// between cut an idle connection.
pub const WEBSOCKET_PING_MS: u64 = 20_000;

/// Messages posted for old SSE clients that wait for one worker to look at them, which it does as soon as it runs: this many in a burst.
pub const SSE_INBOX: usize = 1024;

/// Messages of one old SSE client that wait to be taken up, behind an `initialize` that is not answered or an answer that the client
/// does not read. Together they are at most `MAX_BUFFER_SIZE` long.
pub const SSE_POSTED: usize = 64;

/// Bytes of a refused request that are read and thrown away before the connection closes, so that the refusal is not
/// overtaken by a reset.
pub const LINGER_BYTES: usize = 512 * 1024;

/// How long that may take.
pub const LINGER_MS: u64 = 2_000;

/// What a connection may still finish after it was asked to close. With a tick before it, it is gone within the second that the
/// revocation of a token may take.
pub const CLOSE_MS: u64 = 500;

/// Refused connections that one worker lets linger at once; more are closed at once. A flood must not cost memory.
pub const MAX_LINGERING: usize = 256;

/// Events of several upstreams, or messages of a pump, that wait for one client.
pub const STREAM_QUEUE: usize = 16;

/// Pages that are followed when the lists of several upstreams are merged, an upstream.
pub const MAX_LIST_PAGES: usize = 64;

/// Milliseconds that one upstream may take to answer a part of a merged list: a stalled one must not take the others' tools away.
pub const FAN_OUT_TIMEOUT_MS: u64 = 5_000;

/// Tools (prompts, resources) of one upstream whose owner is remembered.
pub const MAX_CATALOG_ENTRIES: usize = 10_000;

/// How soon after the last time all upstreams are asked for their lists because of a name that nobody is known to have.
pub const LOOK_AGAIN_MS: u64 = 2_000;

/// Connections waiting to be accepted, a worker.
pub const ACCEPT_BACKLOG: i32 = 1024;

/// Counts by address, client and connection that are kept at once. What is one more displaces what has been used least.
pub const COUNTED_CLIENTS: usize = 65_536;

/// Counts by agent, tool and number that are kept at once, in a file of 25 MiB.
pub const COUNTED_ACTIONS: usize = 16_384;
