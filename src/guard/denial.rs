//! What a guard answers when it refuses, and everything that follows from it.

use std::sync::Arc;

use crate::guard::inspect::Found;
use crate::guard::jwt::Refusal;
use crate::guard::outbound::Offending;
use crate::guard::rates::Exceeded;
use crate::guard::results::ResultFault;
use crate::rpc::reply::{Amount, ToolRefusal};
use crate::settings::money::Usd;
use crate::state::events::EventKind;
use crate::state::spend::Span;

/// Why something is refused. One value, from which the HTTP status, the answer, the audit event and the metric label are
/// read; nobody else decides any of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The address is on the deny list.
    AddressDenied,
    /// The address is blocked: by an operator, or for breaking rate limits again and again.
    AddressBlocked,
    /// The address is locked out after failed authentications.
    LockedOut {
        /// How much of the lockout is left.
        retry_after_ms: u64,
    },
    /// The door has as many connections as it may have.
    DoorFull,
    /// The address has as many connections as it may have.
    AddressFull,
    /// The `Host` header names a host that is not served (DNS rebinding).
    HostNotServed,
    /// A browser page of another origin is calling.
    OriginNotAllowed,
    /// No `Authorization` header.
    MissingToken,
    /// An `Authorization` header that is not `Bearer` and one token.
    MalformedAuthorization,
    /// A token that is not known, or no longer.
    BadToken,
    /// A JWT that is not accepted.
    BadJwt(Refusal),
    /// The call names another agent than the token's.
    ForeignAgent {
        /// The token's agent.
        own: Arc<str>,
        /// The agent that was named, where it is fit to be shown.
        named: Option<String>,
    },
    /// `agentId` is there, but not as a string, or in another spelling.
    AmbiguousAgent,
    /// The tool is not one of those that the policy lets its caller use.
    ToolNotPermitted,
    /// The call would exceed what its caller may spend.
    SpendCap(SpendCap),
    /// What the call costs cannot be told: the argument that says it is no text.
    Unpriceable,
    /// What the call costs cannot be written down.
    SpendUnrecorded,
    /// The audit trail cannot be written, and the profile does not allow unrecorded calls.
    AuditUnavailable,
    /// What the message carries is an attack on what stands behind, or not what the policy says it is.
    InvalidInput(Box<Found>),
    /// A text that goes to people says what it must not, or gives away what it must not.
    ContentBlocked(Box<Offending>),
    /// What a tool has answered must not pass.
    ResultWithheld(ResultFault),
    /// The tool's description is not the one that was accepted.
    ToolChanged,
    /// A voice action does not say clearly whom it calls.
    UnclearRecipient {
        /// The argument that is to say it, as the policy names it.
        argument: Arc<str>,
    },
    /// It was done already as often as it may be.
    RateLimited(Exceeded),
}

/// What a call would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpendCap {
    /// The day's cap or the month's.
    pub span: Span,
    /// What is spent and reserved, micro-dollars.
    pub taken: u64,
    /// The cap, micro-dollars.
    pub cap: u64,
    /// Until the period is over.
    pub retry_after_ms: u64,
}

impl SpendCap {
    fn name(self) -> &'static str {
        match self.span {
            Span::Day => "daily-spend",
            Span::Month => "monthly-spend",
        }
    }
}

/// A limit as its denial tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitHit {
    /// Its name.
    pub limit_type: &'static str,
    /// How much was used.
    pub current: Amount,
    /// How much is allowed.
    pub max: Amount,
    /// When it may be tried again, from now.
    pub retry_after_ms: u64,
    /// When that is, in words.
    pub resets: &'static str,
}

impl LimitHit {
    /// The sentence the client reads.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { limit_type, current, max, resets, .. } = self;
        format!("Rate limit exceeded: {limit_type} ({current}/{max}). Resets {resets}.")
    }
}

/// How a denial is told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// An HTTP status and a small JSON body, before anything is known of a message.
    Http(u16),
    /// A tool result (or, by `DENIAL_STYLE`, a JSON-RPC error), so that the model can read why.
    Call,
    /// The error that answers a call of what does not exist: to its caller, it does not. JSON-RPC code -32602.
    Unknown,
    /// A JSON-RPC error under an HTTP status.
    Rpc {
        /// The HTTP status.
        status: u16,
        /// The JSON-RPC error code.
        code: i64,
    },
}

impl Denial {
    /// How it is told.
    #[must_use]
    pub fn tell(&self) -> Tell {
        match self {
            Self::AddressDenied | Self::AddressBlocked | Self::HostNotServed | Self::OriginNotAllowed => {
                Tell::Http(403)
            }
            Self::LockedOut { .. } => Tell::Http(429),
            Self::DoorFull | Self::AddressFull => Tell::Http(503),
            Self::MissingToken | Self::MalformedAuthorization | Self::BadToken | Self::BadJwt(_) => Tell::Http(401),
            Self::ForeignAgent { .. } | Self::AmbiguousAgent | Self::InvalidInput(_) => Tell::Call,
            Self::UnclearRecipient { .. } | Self::SpendCap(_) | Self::Unpriceable | Self::ContentBlocked(_) => {
                Tell::Call
            }
            Self::ResultWithheld(_) | Self::ToolChanged => Tell::Call,
            Self::ToolNotPermitted => Tell::Unknown,
            Self::AuditUnavailable | Self::SpendUnrecorded => Tell::Rpc { status: 503, code: -32603 },
            Self::RateLimited(exceeded) => exceeded.limit.tell(),
        }
    }

    /// The sentence the client reads. Never a secret; a value of the message only where the contract says so, and then only when it
    /// is a plain identifier.
    #[must_use]
    pub fn text(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::AddressDenied | Self::AddressBlocked | Self::HostNotServed | Self::OriginNotAllowed => {
                "Forbidden".into()
            }
            Self::LockedOut { .. } => "Too many failed attempts. Try again later.".into(),
            Self::DoorFull | Self::AddressFull => "Service unavailable - connection limit reached".into(),
            Self::MissingToken | Self::MalformedAuthorization => {
                "Missing Authorization header. Use: Bearer <token>".into()
            }
            Self::BadToken | Self::BadJwt(_) => "Invalid or revoked token".into(),
            Self::ForeignAgent { own, named: Some(named) } => {
                format!("Token for agent \"{own}\" cannot access agent \"{named}\"").into()
            }
            Self::ForeignAgent { own, named: None } => {
                format!("Token for agent \"{own}\" cannot access another agent").into()
            }
            Self::AmbiguousAgent => "Invalid input for \"agentId\": must be one string".into(),
            // What the gateway says of a tool that no upstream has.
            Self::ToolNotPermitted => "Unknown tool".into(),
            Self::SpendCap(_) => {
                let hit = self.limit();
                hit.map_or("Rate limit exceeded".into(), |hit| hit.text().into())
            }
            Self::Unpriceable => "Invalid input: the text that the price depends on must be one string".into(),
            Self::SpendUnrecorded => "Service unavailable - spend cannot be recorded".into(),
            Self::AuditUnavailable => "Service unavailable - calls cannot be recorded".into(),
            Self::ContentBlocked(offending) => offending.offence.text().into(),
            Self::ResultWithheld(fault) => fault.text(),
            Self::ToolChanged => "The description of this tool has changed since it was accepted; an operator must accept it before it can be called (rule tool-pin)".into(),
            Self::InvalidInput(found) => {
                format!("Invalid input for \"{}\": {}", found.field(), found.finding.rule.label()).into()
            }
            Self::UnclearRecipient { argument } => {
                format!("Invalid input for \"{argument}\": must be one number").into()
            }
            Self::RateLimited(exceeded) => exceeded.text(),
        }
    }

    /// The sentence that the audit trail has of it, which may say more than the client's.
    #[must_use]
    pub fn recorded(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::ToolNotPermitted => "The policy does not let this caller use this tool".into(),
            Self::ContentBlocked(offending) => format!("{}: {}", offending.offence.text(), offending.detail).into(),
            Self::InvalidInput(found) => format!("{found}").into(),
            _ => self.text(),
        }
    }

    /// The rule's name: the `rule` of audit lines, answers and metrics.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::AddressDenied => "ip-denylist",
            Self::AddressBlocked => "ip-block",
            Self::LockedOut { .. } => "lockout",
            Self::DoorFull => "door-connections",
            Self::AddressFull => "ip-connections",
            Self::HostNotServed => "host",
            Self::OriginNotAllowed => "origin",
            Self::MissingToken | Self::MalformedAuthorization | Self::BadToken | Self::BadJwt(_) => "authentication",
            Self::ForeignAgent { .. } | Self::AmbiguousAgent => "agent-binding",
            Self::ToolNotPermitted => "tool-permission",
            Self::SpendCap(cap) => cap.name(),
            Self::Unpriceable => "price",
            Self::SpendUnrecorded => "spend",
            Self::AuditUnavailable => "audit",
            Self::InvalidInput(found) => found.finding.rule.class().name(),
            Self::ContentBlocked(offending) => offending.offence.rule(),
            Self::ResultWithheld(fault) => fault.rule(),
            Self::ToolChanged => "tool-pin",
            Self::UnclearRecipient { .. } => "recipient",
            Self::RateLimited(exceeded) => exceeded.limit.rule(),
        }
    }

    /// What is known of the limit, where it is one.
    #[must_use]
    pub fn exceeded(&self) -> Option<&Exceeded> {
        match self {
            Self::RateLimited(exceeded) => Some(exceeded),
            _ => None,
        }
    }

    /// The limit that it is about, where it is about one.
    #[must_use]
    pub fn limit(&self) -> Option<LimitHit> {
        let cap = match self {
            Self::SpendCap(cap) => cap,
            Self::RateLimited(exceeded) => return exceeded.hit(),
            _ => return None,
        };
        Some(LimitHit {
            limit_type: cap.name(),
            current: Amount::Money(Usd(cap.taken)),
            max: Amount::Money(Usd(cap.cap)),
            retry_after_ms: cap.retry_after_ms,
            resets: match cap.span {
                Span::Day => "at midnight UTC",
                Span::Month => "at the start of next month",
            },
        })
    }

    /// What a caller is told beside the sentence, which is `text`.
    #[must_use]
    pub fn refusal<'a>(&'a self, text: &'a str) -> ToolRefusal<'a> {
        let (hit, exceeded) = (self.limit(), self.exceeded());
        let count = |of: fn(&Exceeded) -> u64| exceeded.map(of);
        ToolRefusal {
            error: text,
            rule: self.rule(),
            field: self.field(),
            limit_type: hit.map(|hit| hit.limit_type),
            current: hit.map(|hit| hit.current).or(count(|exceeded| exceeded.current).map(Amount::Count)),
            max: hit.map(|hit| hit.max).or(count(|exceeded| exceeded.max).map(Amount::Count)),
            reset_description: hit.map(|hit| hit.resets),
            retry_after_ms: hit.map(|hit| hit.retry_after_ms).or(count(|exceeded| exceeded.retry_after_ms)),
        }
    }

    /// Whether somebody has failed to show who it is.
    #[must_use]
    pub fn is_failed_authentication(&self) -> bool {
        self.rule() == "authentication"
    }

    /// Whether that counts towards a lockout. Who shows nothing guesses nothing: clients ask without a token first, to learn where they get one.
    #[must_use]
    pub fn is_guess(&self) -> bool {
        self.is_failed_authentication() && *self != Self::MissingToken
    }

    /// Whether a client is refused for its address, whatever it says.
    #[must_use]
    pub fn is_of_address(&self) -> bool {
        matches!(self, Self::AddressDenied | Self::AddressBlocked | Self::LockedOut { .. })
    }

    /// Seconds after which to come again: the `Retry-After` of its answer.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::LockedOut { retry_after_ms } => Some(retry_after_ms.div_ceil(1_000).max(1)),
            Self::DoorFull | Self::AddressFull | Self::AuditUnavailable => Some(1),
            _ => None,
        }
    }

    /// The JSON pointer of the field it is about, from the message's root.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::ForeignAgent { .. } | Self::AmbiguousAgent => Some("/params/arguments/agentId"),
            Self::ContentBlocked(offending) => Some(&offending.field),
            Self::InvalidInput(found) => Some(&found.pointer),
            _ => None,
        }
    }

    /// The audit event it leaves.
    #[must_use]
    pub fn event(&self) -> EventKind {
        match self {
            Self::AddressDenied
            | Self::AddressBlocked
            | Self::LockedOut { .. }
            | Self::HostNotServed
            | Self::OriginNotAllowed => EventKind::BlockedConnection,
            Self::DoorFull | Self::AddressFull => EventKind::ConnectionLimit,
            Self::MissingToken
            | Self::MalformedAuthorization
            | Self::BadToken
            | Self::BadJwt(_)
            | Self::ForeignAgent { .. } => EventKind::InvalidAuth,
            Self::AmbiguousAgent | Self::InvalidInput(_) | Self::UnclearRecipient { .. } => EventKind::InvalidInput,
            // Not a failed authentication: who calls is known, and guesses of tools must not count towards a lockout.
            Self::ToolNotPermitted | Self::ToolChanged => EventKind::ComplianceBlocked,
            Self::SpendCap(_) => EventKind::RateLimitExceeded,
            Self::Unpriceable => EventKind::InvalidInput,
            Self::SpendUnrecorded => EventKind::ComplianceBlocked,
            Self::AuditUnavailable => EventKind::Alert,
            Self::ContentBlocked(_) | Self::ResultWithheld(_) => EventKind::ContentBlocked,
            Self::RateLimited(_) => EventKind::RateLimitExceeded,
        }
    }
}
