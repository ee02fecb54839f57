//! What is decided from a request's head, before its body is waited for: rates, route, host and origin, authentication, media types.
//!
//! An attacker that may not come in shall not make us read ten megabytes first.

use std::net::IpAddr;
use std::ops::Range;

use super::Connection;
use super::answer::{self, Fields};
use super::remembered::{Remembered, Shown};
use crate::gateway::desk::Errand;
use crate::guard::{Authenticator, Denial, Principal};
use crate::state::events::EventKind;
use crate::state::lifecycle::Door;
use crate::wire::http1::request::{Method, RequestHead};
use crate::wire::http1::{Field, Reject};
use crate::wire::websocket::handshake::server::read_upgrade;
use crate::worker::authentication::Admitted;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `POST /mcp`.
    Post,
    /// `GET /mcp`: the event stream of a session.
    Get,
    /// `DELETE /mcp`: the end of a session.
    Delete,
    /// `GET /ws`, also `/`: the upgrade to a WebSocket.
    WebSocket {
        /// Whether the request says who it is from; else the first message does.
        known: bool,
    },
    /// `GET /sse`: the stream of a client of 2024-11-05.
    Events,
    /// `POST /messages`: a message of such a client.
    Message,
    /// `GET /pass-through/…`: a WebSocket without MCP, see `door/pass_through.rs`.
    #[cfg(feature = "pass-through")]
    PassThrough,
    /// `POST /oauth/token`, `POST /oauth/revoke`: answered by the control thread.
    OAuth(Errand),
    /// Something that the gateway answers by itself.
    Page(Page),
}

impl Early {
    /// Whether the client is refused for its address.
    pub(super) fn is_of_address(&self) -> bool {
        matches!(self, Self::Denied(denial) if denial.is_of_address())
    }
}

impl Route {
    /// Whether the request on this route has told who it is from.
    pub(super) fn tells_principal(self) -> bool {
        !matches!(self, Self::WebSocket { known: false })
    }
}

/// What the gateway answers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// `GET /health`.
    Health,
    /// `GET /health/ready`.
    Ready,
    /// `GET /.well-known/oauth-protected-resource` (RFC 9728).
    ProtectedResource,
    /// `GET /.well-known/oauth-authorization-server` (RFC 8414).
    AuthorizationServer,
}

/// Why a request goes no further than its head.
pub(super) enum Early {
    /// A guard refused it.
    Denied(Denial),
    /// No such path.
    NotFound,
    /// The path has other methods.
    MethodNotAllowed(&'static str),
    /// The client must take what an upstream may send.
    NotAcceptable(&'static str),
    /// The body is not JSON.
    UnsupportedMediaType,
    /// The body is neither a form nor JSON.
    UnsupportedForm,
    /// It is no valid request for an upgrade.
    NoUpgrade(Reject),
}

const MCP_METHODS: &str = "POST, GET, DELETE";

impl Connection {
    /// The gate: where the request goes and who sends it.
    pub(super) fn gate(&mut self, head: &RequestHead, place: Range<usize>) -> Result<(Route, Principal), Early> {
        let input = std::mem::take(&mut self.input);
        let admitted = self.gate_bytes(head, input.get(place).unwrap_or_default());
        self.input = input;
        admitted
    }

    fn gate_bytes(&mut self, head: &RequestHead, buf: &[u8]) -> Result<(Route, Principal), Early> {
        self.identify_client(head, buf)?;
        let route = route(head, buf);
        if let Ok(Route::Page(page @ (Page::Health | Page::Ready))) = route {
            // For load balancers, which know neither our names nor a token, and ask as often as they like.
            return Ok((Route::Page(page), Principal::Anonymous));
        }
        self.worker.admit_request(self.client).map_err(Early::Denied)?;
        let route = route?;
        let generation = self.worker.generation();
        let shown = if route == Route::Post { Shown::of(head, buf) } else { None };
        if let (Some(shown), Some(last)) = (shown, &self.remembered)
            && let Some(principal) = last.again(shown, generation)
            && self.lease.as_ref().is_none_or(|lease| lease.renew(self.worker.tick_epoch_ms()))
        {
            let principal = principal.clone();
            self.note_success(&principal);
            self.see(&principal);
            return Ok((route, principal));
        }
        let snapshot = self.worker.snapshot();
        let known = &head.known;
        let value = |span: Option<crate::wire::Span>| span.map(|span| span.of(buf));
        snapshot.hosts.check(value(known.host), value(known.origin)).map_err(Early::Denied)?;
        match route {
            Route::Page(Page::AuthorizationServer) if snapshot.authorization_server.is_none() => {
                return Err(Early::NotFound);
            }
            // Who asks for a token says who it is in the request itself.
            Route::OAuth(_) if super::oauth::media(head, buf).is_none() => return Err(Early::UnsupportedForm),
            Route::Page(_) | Route::OAuth(_) => return Ok((route, Principal::Anonymous)),
            _ => {}
        }
        if route == (Route::WebSocket { known: true }) {
            return self.gate_upgrade(&snapshot.authenticator, head, buf);
        }
        #[cfg(feature = "pass-through")]
        if route == Route::PassThrough {
            return match self.gate_upgrade(&snapshot.authenticator, head, buf)? {
                // Nobody listens for a first message that tells.
                (Route::WebSocket { known: false }, _) => Err(Early::Denied(Denial::MissingToken)),
                (_, principal) => Ok((route, principal)),
            };
        }
        let (authenticator, authorization) = (&snapshot.authenticator, value(known.authorization));
        let admitted = if route == Route::Events && snapshot.settings.doors.sse_query_token {
            super::sse::check_query_token(&self.worker, authenticator, authorization, value(head.query))
        } else {
            self.worker.check_authorization(authenticator, authorization)
        };
        let last = self.remembered.take();
        let principal = self.admit(admitted.map_err(Early::Denied)?);
        media_types(route, head, buf)?;
        if let Some(shown) = shown {
            self.remembered = Remembered::note(last, shown, generation, &principal);
        }
        // Who opens a stream is announced as the stream's client.
        if route != Route::Events {
            self.see(&principal);
        }
        Ok((route, principal))
    }

    /// A request for an upgrade says who it is from in its `Authorization`, in a subprotocol (browsers cannot set the header), or not at all: then
    /// the first message does.
    fn gate_upgrade(
        &mut self,
        authenticator: &Authenticator,
        head: &RequestHead,
        buf: &[u8],
    ) -> Result<(Route, Principal), Early> {
        let upgrade = read_upgrade(head, buf).map_err(Early::NoUpgrade)?;
        let header = head.known.authorization.map(|span| span.of(buf));
        let worker = &self.worker;
        let admitted = match (header, upgrade.bearer) {
            (Some(value), _) => worker.check_authorization(authenticator, Some(value)).map_err(Early::Denied)?,
            (None, Some(token)) => worker.check_token(authenticator, token.of(buf)).map_err(Early::Denied)?,
            (None, None) => match authenticator.without_token() {
                Some(principal) => principal.into(),
                None => return Ok((Route::WebSocket { known: false }, Principal::Anonymous)),
            },
        };
        Ok((Route::WebSocket { known: true }, self.admit(admitted)))
    }

    /// Notes what the connection's stay hangs on from now on. What is remembered of the last call hung on what it held before.
    fn admit(&mut self, admitted: Admitted) -> Principal {
        self.remembered = None;
        self.worker.leases.hold(self.entry.id(), &mut self.lease, admitted.lease);
        self.note_success(&admitted.principal);
        admitted.principal
    }

    /// Takes back what is counted of the client's address. Over a connection that one client has for itself that costs a load, while nobody fails.
    fn note_success(&mut self, principal: &Principal) {
        let failures = self.worker.shared.blocks.failures();
        if self.failures_seen != failures || self.client != self.peer.ip() {
            self.failures_seen = failures;
            self.worker.authentication_succeeded(self.client, principal);
        }
    }

    /// Whose request this is, and whether its address may come in.
    fn identify_client(&mut self, head: &RequestHead, buf: &[u8]) -> Result<(), Early> {
        let (peer, known) = (self.peer.ip(), &head.known);
        // Read before the look-up: a block that comes in between changes the number.
        let seen = self.worker.shared.blocks.generation();
        let snapshot = self.worker.snapshot();
        let Some(last) = known.x_forwarded_for.filter(|_| snapshot.proxies.trusts(peer)) else {
            if self.let_in_under != seen {
                self.let_in(peer)?;
                self.let_in_under = seen;
            }
            return Ok(());
        };
        self.client = if known.x_forwarded_for_multiple {
            let is_ours = |field: &&Field| field.name.of(buf).eq_ignore_ascii_case(b"x-forwarded-for");
            let lines = head.fields.iter().rev().filter(is_ours).map(|field| field.value.of(buf));
            snapshot.proxies.client_ip(peer, lines)
        } else {
            snapshot.proxies.client_ip(peer, [last.of(buf)])
        };
        self.let_in(self.client)
    }

    fn let_in(&self, client: IpAddr) -> Result<(), Early> {
        self.worker.keeps_out(client).map_or(Ok(()), |denial| Err(Early::Denied(denial)))
    }

    /// Takes note of who is on this connection.
    fn see(&mut self, principal: &Principal) {
        if self.principal.as_ref() != Some(principal) {
            self.announce(principal);
        }
    }

    /// Records who is on this connection now.
    fn announce(&mut self, principal: &Principal) {
        let first = self.principal.is_none();
        self.principal = Some(principal.clone());
        self.entry.identify(principal.kind(), principal.agent().map_or("", |id| id));
        if first {
            self.record(self.event(EventKind::ConnectionEstablished));
        }
        if matches!(principal, Principal::Door | Principal::Agent(_)) {
            self.record(self.event(EventKind::AuthSuccess));
        }
    }

    /// Puts the answer to a request that goes no further into the output.
    pub(super) fn write_early(&mut self, early: &Early, close: bool) {
        let fields = Fields { close, ..Fields::default() };
        let (status, text) = match early {
            Early::Denied(denial) => return self.write_denial(denial, close),
            Early::NotFound => (404, "Not found. MCP is served at /mcp"),
            Early::MethodNotAllowed(allow) => {
                let fields = Fields { allow: Some(allow), ..fields };
                self.worker.metrics.response(405);
                return answer::error(&mut self.output, 405, "Method not allowed", fields);
            }
            Early::NotAcceptable(text) => (406, *text),
            Early::NoUpgrade(reject) => {
                self.worker.metrics.response(reject.status);
                let fields = Fields { upgrade: Some(*reject), ..fields };
                return answer::error(&mut self.output, reject.status, reject.reason, fields);
            }
            Early::UnsupportedForm => {
                (415, "Unsupported media type: send application/x-www-form-urlencoded or application/json")
            }
            Early::UnsupportedMediaType => {
                (415, "Unsupported media type: send application/json, in UTF-8, without Content-Encoding")
            }
        };
        self.worker.metrics.response(status);
        answer::error(&mut self.output, status, text, fields);
    }

    /// Counts, records and answers a denial that is told over HTTP alone.
    fn write_denial(&mut self, denial: &Denial, close: bool) {
        if denial.is_of_address() {
            self.worker.note_blocked(self.client, denial);
        } else {
            self.record_denial(denial);
        }
        let before = self.output.len();
        answer::denial(&mut self.output, denial, &self.worker.snapshot().challenge, close);
        self.worker.metrics.response(answer::status_of(self.output.get(before..).unwrap_or_default()));
    }

    fn record_denial(&self, denial: &Denial) {
        self.worker.note_refusal(denial, self.client);
        let event = self.event(denial.event()).with_rule(denial.rule());
        self.record(match denial {
            Denial::RateLimited(_) => event.with_details(format_args!("{}", denial.text())),
            Denial::HostNotServed => event.with_details(format_args!("BLOCKED: Host is not served")),
            Denial::OriginNotAllowed => event.with_details(format_args!("BLOCKED: Origin is not allowed")),
            Denial::MissingToken => event.with_details(format_args!("no token")),
            Denial::MalformedAuthorization => event.with_details(format_args!("not a bearer token")),
            Denial::BadJwt(refusal) => event.with_details(format_args!("JWT: {refusal}")),
            _ => event,
        });
        if denial.is_failed_authentication() {
            self.worker.metrics.door(Door::Http).auth_failures.inc();
        }
        if denial.is_guess() {
            self.worker.authentication_failed(self.client);
        }
    }
}

fn route(head: &RequestHead, buf: &[u8]) -> Result<Route, Early> {
    let page = |page| match head.method {
        Method::Get | Method::Head => Ok(Route::Page(page)),
        _ => Err(Early::MethodNotAllowed("GET, HEAD")),
    };
    match head.path(buf) {
        b"/mcp" => match head.method {
            Method::Post => Ok(Route::Post),
            Method::Get => Ok(Route::Get),
            Method::Delete => Ok(Route::Delete),
            _ => Err(Early::MethodNotAllowed(MCP_METHODS)),
        },
        b"/ws" => Ok(Route::WebSocket { known: true }),
        b"/" if head.upgrade_websocket => Ok(Route::WebSocket { known: true }),
        b"/sse" => match head.method {
            Method::Get => Ok(Route::Events),
            _ => Err(Early::MethodNotAllowed("GET")),
        },
        b"/messages" => match head.method {
            Method::Post => Ok(Route::Message),
            _ => Err(Early::MethodNotAllowed("POST")),
        },
        #[cfg(feature = "pass-through")]
        path if crate::door::pass_through::serves(path) => Ok(Route::PassThrough),
        b"/health" => page(Page::Health),
        b"/health/ready" => page(Page::Ready),
        b"/.well-known/oauth-protected-resource" | b"/.well-known/oauth-protected-resource/mcp" => {
            page(Page::ProtectedResource)
        }
        b"/.well-known/oauth-authorization-server" => page(Page::AuthorizationServer),
        b"/oauth/token" | b"/oauth/revoke" if head.method != Method::Post => Err(Early::MethodNotAllowed("POST")),
        b"/oauth/token" => Ok(Route::OAuth(Errand::Token)),
        b"/oauth/revoke" => Ok(Route::OAuth(Errand::Revoke)),
        _ => Err(Early::NotFound),
    }
}

fn media_types(route: Route, head: &RequestHead, buf: &[u8]) -> Result<(), Early> {
    match route {
        Route::Post | Route::Message => {
            // Another charset or a coding would let the upstream read another body than the one that is checked here.
            let json = head.known.content_type.is_some_and(|span| is_json_in_utf8(span.of(buf)));
            if !json || head.known.is_coded {
                return Err(Early::UnsupportedMediaType);
            }
            // What answers a message of 2024-11-05 comes over its stream.
            let is_answered_here = route == Route::Post;
            if is_answered_here
                && (!accepts(head, buf, b"application/json") || !accepts(head, buf, b"text/event-stream"))
            {
                return Err(Early::NotAcceptable(
                    "Not acceptable: Accept must list application/json and text/event-stream",
                ));
            }
        }
        Route::Get | Route::Events if !accepts(head, buf, b"text/event-stream") => {
            return Err(Early::NotAcceptable("Not acceptable: Accept must list text/event-stream"));
        }
        _ => {}
    }
    Ok(())
}

/// Whether this is `application/json` without a charset, or with the only one that JSON is exchanged in (RFC 8259 §8.1).
pub(super) fn is_json_in_utf8(value: &[u8]) -> bool {
    let charset_is_utf8 = |parameter: &[u8]| {
        let parameter = parameter.trim_ascii();
        let Some((name, charset)) = parameter.split_at_checked(7) else { return true };
        if !name.eq_ignore_ascii_case(b"charset") {
            return true;
        }
        let Some(charset) = charset.strip_prefix(b"=") else { return false };
        let charset = charset.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(charset);
        charset.eq_ignore_ascii_case(b"utf-8")
    };
    is_type(value, b"application/json") && value.split(|b| *b == b';').skip(1).all(charset_is_utf8)
}

/// Whether a media type with parameters is this type.
pub(super) fn is_type(value: &[u8], wanted: &[u8]) -> bool {
    let essence = value.split(|b| *b == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(wanted)
}

/// Whether the `Accept` lines list this type, with a weight other than 0 (RFC 9110 §12.5.1).
fn accepts(head: &RequestHead, buf: &[u8], wanted: &[u8]) -> bool {
    let lists = |line: &[u8]| line.split(|b| *b == b',').any(|range| is_type(range, wanted) && !is_refused(range));
    if head.known.accept_multiple {
        head.values(buf, b"accept").any(lists)
    } else {
        head.known.accept.is_some_and(|span| lists(span.of(buf)))
    }
}

/// `q=0` in any spelling.
fn is_refused(range: &[u8]) -> bool {
    range.split(|b| *b == b';').skip(1).any(|parameter| {
        let parameter = parameter.trim_ascii();
        let Some(weight) = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q=")) else {
            return false;
        };
        !weight.is_empty() && weight.iter().all(|b| matches!(b, b'0' | b'.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_compared_by_their_essence() {
        assert!(is_type(b"application/json", b"application/json"));
        assert!(is_type(b"Application/JSON; charset=utf-8", b"application/json"));
        assert!(!is_type(b"application/jsonp", b"application/json"));
        assert!(!is_type(b"", b"application/json"));
        for (value, accepted) in [
            (&b"application/json"[..], true),
            (b"application/json; charset=utf-8", true),
            (b"application/json;Charset=\"UTF-8\"", true),
            (b"application/json; charset=utf-7", false),
            (b"application/json; charset=utf-16", false),
            (b"application/json; charset=latin1", false),
            (b"application/json; charset=utf-8; charset=utf-7", false),
            (b"application/json; charset = utf-7", false),
            (b"text/json", false),
        ] {
            assert_eq!(is_json_in_utf8(value), accepted, "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn a_weight_of_zero_is_a_refusal() {
        for (range, refused) in [
            (&b"application/json"[..], false),
            (b"application/json;q=0", true),
            (b"application/json; q=0.000", true),
            (b"application/json;q=0.001", false),
            (b"application/json;charset=utf-8;Q=0", true),
        ] {
            assert_eq!(is_refused(range), refused, "{}", String::from_utf8_lossy(range));
        }
    }
}
