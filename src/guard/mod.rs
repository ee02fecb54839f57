//! The guards: who may come in, and what may go through.
//!
//! A guard is a function of a message, what is known of its sender, and `now`. It does no I/O, reads no clock and writes to no
//! log; it answers with a permit or a [`Denial`], and the denial alone decides everything that follows from it: the status, the
//! answer, the audit event and the metric's label ([`denial`]). What cannot be decided is denied.
//!
//! Before a request's body is read: [`proxies`] (who the client is), [`blocks`], [`hosts`] (DNS rebinding, cross-origin calls), [`authenticate`] and [`jwt`]. On every message:
//! [`identity`], [`permission`], [`inspect`], [`spend`] and [`price`]. On what agents send to people: [`outbound`], which asks
//! [`content`] and [`sensitive`]; on what tools answer: [`results`], which asks them too.

pub mod actions;
pub mod authenticate;
pub mod blocks;
pub mod content;
pub mod denial;
pub mod hosts;
pub mod identity;
pub mod inspect;
pub mod jwt;
pub mod limits;
pub mod outbound;
pub mod permission;
pub mod price;
pub mod proxies;
pub mod rates;
pub mod results;
pub mod sensitive;
pub mod spend;

pub use authenticate::{Authenticator, Issued, Principal, Shown};
pub use denial::Denial;
pub use limits::LimitBook;
pub use outbound::Outbound;
pub use permission::{Access, Permissions};
pub use proxies::TrustedProxies;
pub use results::Results;
