//! Settings: environment, `.env` and policy file become one immutable, validated tree.
//!
//! [`Inputs`] gathers what there is, [`Settings::load`] makes the tree of it, and nothing else in the program reads a
//! variable or a settings file. Loading is a pure function: no clock, no global state, no change to the environment.
//!
//! What it promises:
//! - Never a silent default. A value that does not parse, is out of range or contradicts another is a [`Fault`], and
//!   all faults are reported at once, each with the variable, the value, what is allowed and an example.
//! - No secret is ever shown: secrets are [`Secret`]s, faults mask them, and files that hold them are quoted by line
//!   number only.
//! - One table (`table/`) says what settings there are. Loading, `ringwall check`, the suggestions for misspelt names
//!   and the test that keeps `.env.example` complete all read it.
//!
//! What it does not do: look at the files and commands that settings name. `serve` does when it opens them.

mod build;
mod example;
mod fault;
mod files;
mod inputs;
mod load;
pub mod money;
pub mod policy;
mod rules;
pub mod secret;
pub mod table;
mod tree;
mod unknown;
mod url;

pub use example::env_example;
pub use fault::{Effective, Fault, Faults, MASK, Source, Warning};
pub use inputs::{CommandLine, Inputs};
pub use load::Loaded;
pub use policy::{
    Agent, ContentMode, ContentPolicy, CredentialAs, EnvValue, HttpTarget, INHERITED_ENV, InspectPolicy, Limits,
    Policy, Price, Principals, SensitiveMode, SocketTarget, SocketTransport, StdioTarget, Tier, ToolAccess, ToolKind,
    ToolPattern, ToolPolicy, Upstream, UpstreamCredential, UpstreamHeader, UpstreamTarget, UpstreamTls,
};
pub use rules::{PLACEHOLDERS, SECRET_MIN};
pub use secret::Secret;
pub use tree::{
    Auth, Breaker, Browser, ClientAuth, DenialStyle, Doors, IoDriver, Log, LogFormat, LogLevel, Metrics, Origins,
    Profile, Rates, Records, SanitizeMode, Settings, Tls, TlsServer, TlsVersion, Vault, Webhooks,
};
pub(crate) use url::upstream_target;
