//! The doors that carry messages: a connection with several calls in flight, answered in any order.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::super::process::TOKEN;
use super::super::call::{Call, SESSION};
use super::super::fault::Door;
use super::super::frames::{self, Framing, Piece};
use super::super::rng::Rng;
use super::super::stage::{Guest, PATIENCE, Stage};
use super::super::verdict::{self, Allowed, Answer, Verdict};
use super::Caller;

/// A connection that stands.
pub(super) struct Talk {
    pub(super) guest: Option<Guest>,
    pub(super) stream: TcpStream,
    pub(super) framing: Framing,
    pub(super) received: Vec<u8>,
}

impl Talk {
    /// Connects and says who it is.
    pub(super) async fn open(stage: &Rc<Stage>, door: Door, from: Ipv4Addr) -> io::Result<Self> {
        let stream = stage.connect(door, from).await?;
        let framing = if door == Door::Ws { Framing::Frames { masked: true } } else { Framing::Lines };
        let mut talk = Self { guest: None, stream, framing, received: Vec::new() };
        if door == Door::Ws {
            talk.stream.write_all(frames::upgrade(stage.bridge, TOKEN).as_bytes()).await?;
            let len = loop {
                if let Some((len, status)) = frames::upgraded(&talk.received)? {
                    if status != 101 {
                        return Err(io::Error::other(format!("the upgrade was answered with {status}")));
                    }
                    break len;
                }
                talk.more().await?;
            };
            talk.received.drain(..len);
        } else {
            let who = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"authenticate","params":{{"token":"{TOKEN}"}}}}"#);
            talk.send(&who).await?;
            let answer = talk.message().await?;
            if answer != br#"{"jsonrpc":"2.0","id":0,"result":{"authenticated":true}}"# {
                return Err(io::Error::other("refused"));
            }
        }
        talk.guest = Some(stage.let_in(door, from));
        Ok(talk)
    }

    /// Connects to the TCP door and says whether this token is taken there.
    pub(super) async fn takes(stage: &Rc<Stage>, token: &str, from: Ipv4Addr) -> io::Result<bool> {
        let stream = stage.connect(Door::Tcp, from).await?;
        let mut talk = Self { guest: None, stream, framing: Framing::Lines, received: Vec::new() };
        talk.send(&format!(r#"{{"jsonrpc":"2.0","id":0,"method":"authenticate","params":{{"token":"{token}"}}}}"#))
            .await?;
        match talk.message().await?.as_slice() {
            br#"{"jsonrpc":"2.0","id":0,"result":{"authenticated":true}}"# => Ok(true),
            br#"{"jsonrpc":"2.0","id":0,"error":{"code":-32000,"message":"Authentication failed"}}"# => Ok(false),
            other => Err(io::Error::other(String::from_utf8_lossy(other).into_owned())),
        }
    }

    /// Opens a session. `false`: an upstream does not answer now.
    async fn initialize(&mut self) -> io::Result<bool> {
        self.send(&format!(
            r#"{{"jsonrpc":"2.0","id":"open","method":"initialize","params":{{"protocolVersion":"{SESSION}","capabilities":{{}},"clientInfo":{{"name":"faults","version":"0"}}}}}}"#
        ))
        .await?;
        let answer = self.message().await?;
        if memchr::memmem::find(&answer, b"\"error\":{\"code\":-32001").is_some() {
            return Ok(false);
        }
        if !answer.starts_with(br#"{"jsonrpc":"2.0","id":"open","result":{"#) {
            return Err(io::Error::other("a wrong answer to initialize"));
        }
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await?;
        Ok(true)
    }

    pub(super) async fn send(&mut self, message: &str) -> io::Result<()> {
        self.stream.write_all(&self.framing.message(message)).await
    }

    async fn more(&mut self) -> io::Result<()> {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
        match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next message.
    pub(super) async fn message(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.framing.take(&mut self.received)? {
                Some(Piece::Message(message)) => return Ok(message),
                Some(Piece::Ping(payload)) => self.stream.write_all(&self.framing.pong(payload)).await?,
                Some(Piece::Close(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(Piece::Nothing) => {}
                None => self.more().await?,
            }
        }
    }
}

/// The calls of one connection that are not answered.
struct Waiting<'a> {
    stage: &'a Stage,
    calls: HashMap<String, (Call, Instant)>,
    /// The session has ended.
    is_lost: bool,
}

impl Waiting<'_> {
    /// Takes a message.
    fn take(&mut self, message: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            id: Option<&'a serde_json::value::RawValue>,
            method: Option<serde::de::IgnoredAny>,
        }
        let ledger = &self.stage.ledger;
        let named = serde_json::from_slice::<Named<'_>>(message);
        let id = match &named {
            Ok(Named { method: Some(_), .. }) => return,
            Ok(Named { id: Some(id), .. }) => id.get(),
            _ => "",
        };
        let Some((call, _)) = self.calls.remove(id) else {
            let shown = String::from_utf8_lossy(message.get(..message.len().min(240)).unwrap_or_default()).into_owned();
            return ledger.violated("no wrong answer", format!("an answer to nothing that is in flight: {shown}"));
        };
        let verdict = verdict::of(&call, &Answer { status: None, is_json: true, body: message });
        self.is_lost |= verdict == Verdict::SessionLost;
        ledger.end(call.number, verdict, message);
    }

    /// All that is open ends so.
    fn all_end(&mut self, verdict: Verdict, shown: &[u8]) {
        for (_, (call, _)) in self.calls.drain() {
            self.stage.ledger.end(call.number, verdict, shown);
        }
    }
}

/// Makes so many calls over a connection of its own, or fewer where it ends before.
pub(super) async fn use_connection(stage: &Rc<Stage>, caller: Caller, rng: &mut Rng, calls: u64) -> io::Result<()> {
    let mut talk = match Talk::open(stage, caller.door, caller.from).await {
        Ok(talk) => talk,
        Err(error) => {
            if !stage.ledger.is_killed.get() {
                let what = format!("a client from {} was not let in at {:?}: {error}", caller.from, caller.door);
                stage.ledger.violated("no wrong answer", what);
            }
            return Err(error);
        }
    };
    if caller.session && !talk.initialize().await? {
        return Err(io::Error::other("no session now"));
    }
    let way = stage.way(caller.door, caller.upstream, caller.session);
    let prefix = stage.prefix(caller.upstream);
    let mut waiting = Waiting { stage, calls: HashMap::new(), is_lost: false };
    let (mut left, mut next) = (calls, Instant::now());
    loop {
        let ends = stage.is_over.get() || waiting.is_lost || left == 0;
        if ends && waiting.calls.is_empty() {
            return farewell(stage, &mut talk).await;
        }
        let now = Instant::now();
        while !ends && waiting.calls.len() < caller.window && next <= now && left > 0 {
            let (fault, shape) = stage.choose(caller.upstream, rng);
            let call = stage.ledger.begin(way, caller.upstream, fault, shape, Allowed::NOTHING);
            waiting.calls.insert(call.id(), (call, now));
            left -= 1;
            if talk.send(&call.message(&prefix, !caller.session)).await.is_err() {
                break;
            }
            next = now + Duration::from_millis(rng.below(2 * stage.pace_ms.get() + 1));
        }
        if waiting.calls.values().any(|(_, began)| began.elapsed() > PATIENCE) {
            waiting.all_end(Verdict::Lost, &talk.received);
            return Ok(());
        }
        let full = waiting.calls.len() >= caller.window || ends;
        let wait = if full { Duration::from_millis(100) } else { next.saturating_duration_since(Instant::now()) };
        match timeout(wait.max(Duration::from_millis(1)), talk.stream.read_buf(&mut talk.received)).await {
            Err(_) => {}
            Ok(Ok(1..)) => {
                while let Some(piece) = talk.framing.take(&mut talk.received)? {
                    match piece {
                        Piece::Message(message) => waiting.take(&message),
                        Piece::Ping(payload) => talk.stream.write_all(&talk.framing.pong(payload)).await?,
                        Piece::Close(code) => {
                            waiting.all_end(Verdict::Cut, format!("closed with {code:?}").as_bytes());
                            return Ok(());
                        }
                        Piece::Nothing => {}
                    }
                }
            }
            Ok(_) => {
                waiting.all_end(Verdict::Cut, &talk.received);
                return Ok(());
            }
        }
    }
}

/// Ends the connection in good order: the gateway has nothing more to say to us.
async fn farewell(stage: &Stage, talk: &mut Talk) -> io::Result<()> {
    if talk.framing == Framing::Lines {
        talk.stream.shutdown().await?;
    } else {
        talk.stream.write_all(&talk.framing.goodbye()).await?;
    }
    loop {
        match talk.framing.take(&mut talk.received)? {
            Some(Piece::Message(message)) => {
                if memchr::memmem::find(&message, b"\"method\":").is_none() {
                    let what = format!("an answer behind the last: {}", String::from_utf8_lossy(&message));
                    stage.ledger.violated("no wrong answer", what);
                }
            }
            Some(Piece::Close(_)) => return Ok(()),
            Some(_) => {}
            None => {
                if talk.more().await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
