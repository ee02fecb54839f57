//! The HTTP door (Streamable HTTP): a POST a message, answered with JSON or a stream of events. The token goes with each request;
//! redirections are not followed, so it goes nowhere else.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::websocket::bearer;
use super::{Arrival, FAREWELL, Order, Outgoing};
use crate::cli::client::MAX_MESSAGE_BYTES;
use crate::cli::client::connect::{Connector, Duplex};
use crate::cli::client::failure::Failure;
use crate::settings::Secret;
use crate::wire::sse::{Splitter, read_event};

/// Requests in flight; further ones wait.
const MAX_EXCHANGES: usize = 16;
/// Room for the head of an answer, bytes; its fields.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_FIELDS: usize = 100;
/// How much of a refusal is read.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

const SESSION: &str = "mcp-session-id";

type Body = Full<Bytes>;

/// The door as one client sees it.
pub(super) struct Http {
    connector: Rc<Connector>,
    authorization: Option<HeaderValue>,
    limit: Duration,
    arrivals: mpsc::Sender<Arrival>,
    /// As the answer to `initialize` named it.
    session: RefCell<Option<HeaderValue>>,
    /// The fields that the last message went under.
    fields: RefCell<Vec<(String, String)>>,
    /// A connection that may be used again.
    idle: RefCell<Option<SendRequest<Body>>>,
}

impl Http {
    pub(super) fn new(
        connector: Rc<Connector>,
        token: Option<&Secret>,
        limit: Duration,
        arrivals: mpsc::Sender<Arrival>,
    ) -> Result<Rc<Self>, Failure> {
        Ok(Rc::new(Self {
            connector,
            authorization: token.map(bearer).transpose()?,
            limit,
            arrivals,
            session: RefCell::default(),
            fields: RefCell::default(),
            idle: RefCell::default(),
        }))
    }

    /// Runs until there is nobody any more who has something to send, then ends the session.
    pub(super) async fn run(self: Rc<Self>, first: Box<dyn Duplex>, mut orders: mpsc::Receiver<Order>) {
        if let Ok(connection) = handshake(first).await {
            *self.idle.borrow_mut() = Some(connection);
        }
        let mut exchanges = JoinSet::new();
        while let Some(order) = orders.recv().await {
            while exchanges.len() >= MAX_EXCHANGES {
                exchanges.join_next().await;
            }
            let http = Rc::clone(&self);
            match order {
                // Requests may be answered in any order. What has no answer keeps its place in line.
                Order::Send(message) if message.id.is_some() => {
                    exchanges.spawn_local(async move { http.post(message).await });
                }
                Order::Send(message) => self.post(message).await,
                Order::Listen { fields } => {
                    exchanges.spawn_local(async move { http.listen(fields).await });
                }
            }
        }
        exchanges.shutdown().await;
        let _ = timeout(FAREWELL, self.leave()).await;
    }

    async fn post(&self, message: Outgoing) {
        let Outgoing { text, id, fields } = message;
        self.fields.borrow_mut().clone_from(&fields);
        let exchange = timeout(self.limit, self.exchange(text, id.as_ref(), &fields));
        let failure = match exchange.await {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            Err(_) => Failure::timeout("answer", self.limit),
        };
        self.tell(Arrival::Failed { id, failure }).await;
    }

    async fn exchange(&self, text: String, id: Option<&Value>, fields: &[(String, String)]) -> Result<(), Failure> {
        let mut request = self.request(Method::POST, fields, Full::new(Bytes::from(text)))?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let (response, connection) = self.send(request).await?;
        if let Some(session) = response.headers().get(SESSION) {
            *self.session.borrow_mut() = Some(session.clone());
        }
        let status = response.status();
        if !status.is_success() {
            let (head, body) = response.into_parts();
            let body = collect(body, MAX_REFUSAL_BYTES).await?;
            *self.idle.borrow_mut() = Some(connection);
            return match id {
                Some(id) if answers(&body, id) => self.message(body).await,
                _ => Err(refusal(status.as_u16(), &head.headers, &body, self.authorization.is_some())),
            };
        }
        let Some(id) = id else { return Ok(()) };
        if is_type(&response, "text/event-stream") {
            return match self.events(response.into_body(), Some(id)).await? {
                true => Ok(()),
                false => Err(Failure::Closed(" before the answer was whole".to_owned())),
            };
        }
        if !is_type(&response, "application/json") {
            return Err(Failure::WrongDoor(format!("no MCP answers here: status {} without JSON", status.as_u16())));
        }
        let body = collect(response.into_body(), MAX_MESSAGE_BYTES).await?;
        *self.idle.borrow_mut() = Some(connection);
        self.message(body).await
    }

    /// Hands on the messages of a stream. Whether the answer to `id` was among them, with which the stream has done its duty.
    async fn events(&self, mut body: Incoming, id: Option<&Value>) -> Result<bool, Failure> {
        let (mut received, mut splitter, mut scratch) = (Vec::new(), Splitter::new(MAX_MESSAGE_BYTES), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            received.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(event) = splitter.next_event(&received).map_err(|_| Failure::TooLong)? {
                let end = event.end as usize;
                let event = read_event(event.of(&received), &mut scratch);
                // An event without data may prime a client for resuming; there is nothing to hand on.
                let data =
                    event.data.filter(|data| !data.is_empty() && matches!(event.event, None | Some(b"" | b"message")));
                if let Some(data) = data {
                    let is_last = id.is_some_and(|id| answers(data, id));
                    self.message(Bytes::copy_from_slice(data)).await?;
                    if is_last {
                        return Ok(true);
                    }
                }
                received.drain(..end);
            }
        }
        Ok(false)
    }

    /// Hears what the server says by itself, as long as it does. A server that has no such stream says 405; that is no failure.
    async fn listen(&self, fields: Vec<(String, String)>) {
        let opening = async {
            let mut request = self.request(Method::GET, &fields, Full::default())?;
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
            self.send(request).await
        };
        let failure = match timeout(self.limit, opening).await {
            Ok(Ok((response, _connection))) if is_type(&response, "text/event-stream") => {
                match self.events(response.into_body(), None).await {
                    Ok(_) => return,
                    Err(failure) => failure,
                }
            }
            Ok(Ok(_)) => return,
            Ok(Err(failure)) => failure,
            Err(_) => Failure::timeout("answer to GET", self.limit),
        };
        self.tell(Arrival::Failed { id: None, failure }).await;
    }

    /// Ends the session, where there is one.
    async fn leave(&self) {
        if self.session.borrow().is_none() {
            return;
        }
        let fields = self.fields.borrow().clone();
        let version = fields.into_iter().filter(|(name, _)| name == "MCP-Protocol-Version").collect::<Vec<_>>();
        if let Ok(request) = self.request(Method::DELETE, &version, Full::default()) {
            // The session ends by itself as well; nobody waits for this.
            let _ = self.send(request).await;
        }
    }

    fn request(&self, method: Method, fields: &[(String, String)], body: Body) -> Result<Request<Body>, Failure> {
        let target = &self.connector.target;
        let mut request = Request::builder()
            .method(method)
            .uri(&target.path_and_query)
            .header(header::HOST, &target.authority)
            .header(header::USER_AGENT, concat!("ringwall-client/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(session) = &*self.session.borrow() {
            request = request.header(SESSION, session);
        }
        for (name, value) in fields {
            request = request.header(name, value);
        }
        request.body(body).map_err(|_| Failure::Usage("something of this message cannot stand in a header".to_owned()))
    }

    /// Sends a request over the connection that is at hand, or a new one.
    async fn send(&self, mut request: Request<Body>) -> Result<(Response<Incoming>, SendRequest<Body>), Failure> {
        let idle = self.idle.borrow_mut().take();
        if let Some(mut connection) = idle
            && connection.ready().await.is_ok()
        {
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                // Given back: not a byte of it was sent, because the server had closed the connection.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(error.error())),
                },
            }
        }
        let mut connection = handshake(self.connector.connect().await?).await?;
        match connection.send_request(request).await {
            Ok(response) => Ok((response, connection)),
            Err(error) => Err(broken(&error)),
        }
    }

    async fn message(&self, text: Bytes) -> Result<(), Failure> {
        let text =
            String::from_utf8(text.into()).map_err(|_| Failure::Protocol("the answer is not UTF-8".to_owned()))?;
        self.tell(Arrival::Message(text)).await;
        Ok(())
    }

    async fn tell(&self, arrival: Arrival) {
        // Nobody hears it once the client has gone.
        let _ = self.arrivals.send(arrival).await;
    }
}

async fn handshake(stream: Box<dyn Duplex>) -> Result<SendRequest<Body>, Failure> {
    let mut builder = Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_FIELDS);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // Its errors come back to whoever waits for an answer.
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn collect(body: Incoming, max_bytes: usize) -> Result<Bytes, Failure> {
    match Limited::new(body, max_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::TooLong),
        Err(error) => Err(error.downcast_ref::<hyper::Error>().map_or_else(|| Failure::Closed(String::new()), broken)),
    }
}

fn broken(error: &hyper::Error) -> Failure {
    if error.is_parse() {
        return Failure::WrongDoor("what answers here is no HTTP: lines, TLS, or something else".to_owned());
    }
    match std::error::Error::source(error) {
        Some(source) => Failure::Closed(format!(": {source}")),
        None => Failure::Closed(" before an answer came".to_owned()),
    }
}

fn is_type(response: &Response<Incoming>, essence: &str) -> bool {
    let value = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(essence)
}

/// Whether this message is the answer to request `id`.
fn answers(message: &[u8], id: &Value) -> bool {
    let Ok(message) = serde_json::from_slice::<Value>(message) else { return false };
    message.get("method").is_none() && message.get("id") == Some(id)
}

/// What a status that is not 2xx says.
pub(super) fn refusal(status: u16, headers: &HeaderMap, body: &[u8], token_sent: bool) -> Failure {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = json.get("error");
    let text = error.and_then(|error| error.as_str().or_else(|| error.get("message")?.as_str()));
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let text = text.or(reason).unwrap_or("no reason given").to_owned();
    if let Some(code) = error.and_then(|error| error.get("code")).and_then(Value::as_i64) {
        return Failure::Rpc { method: "the message".to_owned(), code, message: text };
    }
    if status == 401 {
        return Failure::Token { sent: token_sent, text: format!("refused with HTTP status 401: {text}") };
    }
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Failure::Status { status, text, retry_after }
}
