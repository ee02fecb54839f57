//! Clients that do not behave: that leave in the middle, speak slowly, or say nothing. Each does so once.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::call::Call;
use super::super::fault::{Door, Fault};
use super::super::rng::Rng;
use super::super::stage::{Guest, PATIENCE, Stage};
use super::super::verdict::{self, Allowed, Answer, Verdict};
use super::http;
use super::message::Talk;

/// How a client misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rudeness {
    /// It leaves with half a request sent.
    MidRequest,
    /// It leaves while its answer comes, or is waited for.
    MidAnswer,
    /// It says all that it has to say, ends its sending side, and waits.
    HalfClose,
    /// It sends its request a byte at a time.
    Drip,
    /// It connects and says nothing.
    Silent,
}

impl Rudeness {
    pub(crate) const ALL: [Self; 5] = [Self::MidRequest, Self::MidAnswer, Self::HalfClose, Self::Drip, Self::Silent];
}

/// Longer than a connection that says nothing may stay: the time to say who one is, and for the idle one, and a second.
const SILENCE: Duration = Duration::from_secs(20);

/// A client that has connected and, where that is asked first, said who it is.
struct Visitor {
    stage: Rc<Stage>,
    door: Door,
    upstream: usize,
    stream: TcpStream,
    received: Vec<u8>,
    framing: Option<super::super::frames::Framing>,
    _guest: Option<Guest>,
}

/// Misbehaves once at a door.
pub(crate) async fn misbehave(
    stage: &Rc<Stage>,
    how: Rudeness,
    door: Door,
    upstream: usize,
    from: Ipv4Addr,
    rng: &mut Rng,
) -> io::Result<()> {
    if how == Rudeness::Silent {
        return silent(stage, door, from).await;
    }
    let visitor = Visitor::come(stage, door, upstream, from).await?;
    match how {
        Rudeness::MidRequest => visitor.leave_mid_request(rng).await,
        Rudeness::MidAnswer => visitor.leave_mid_answer(rng).await,
        Rudeness::HalfClose => visitor.half_close(rng).await,
        Rudeness::Drip | Rudeness::Silent => visitor.drip(rng).await,
    }
}

async fn silent(stage: &Rc<Stage>, door: Door, from: Ipv4Addr) -> io::Result<()> {
    let mut stream = stage.connect(door, from).await?;
    let began = Instant::now();
    let mut said = Vec::new();
    match timeout(SILENCE, stream.read_to_end(&mut said)).await {
        Ok(_) => Ok(()),
        Err(_) => {
            let what = format!("a silent connection at {door:?} was open after {:?}", began.elapsed());
            stage.ledger.violated("no leak", what);
            Ok(())
        }
    }
}

impl Visitor {
    async fn come(stage: &Rc<Stage>, door: Door, upstream: usize, from: Ipv4Addr) -> io::Result<Self> {
        let stage = stage.clone();
        if door == Door::Http {
            let stream = stage.connect(door, from).await?;
            let guest = Some(stage.let_in(door, from));
            return Ok(Self { stage, door, upstream, stream, received: Vec::new(), framing: None, _guest: guest });
        }
        let Talk { guest, stream, framing, received } = Talk::open(&stage, door, from).await?;
        Ok(Self { stage, door, upstream, stream, received, framing: Some(framing), _guest: guest })
    }

    fn begin(&self, shape: (usize, u64), extra: &[Verdict]) -> Call {
        let way = self.stage.way(self.door, self.upstream, false);
        self.stage.ledger.begin(way, self.upstream, Fault::None, shape, Allowed::of(extra))
    }

    fn bytes(&self, call: &Call) -> Vec<u8> {
        match self.framing {
            None => http::request(&self.stage, call, self.upstream),
            Some(framing) => framing.message(&call.message(&self.stage.prefix(self.upstream), true)),
        }
    }

    fn end(&self, call: &Call, verdict: Verdict, shown: &[u8]) {
        self.stage.ledger.end(call.number, verdict, shown);
    }

    /// Ends the connection: as a program that ends, or by a reset as one that crashes.
    fn go(self, rng: &mut Rng) {
        if rng.percent(50) {
            let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
        }
    }

    async fn leave_mid_request(mut self, rng: &mut Rng) -> io::Result<()> {
        let call = self.begin((0, 0), &[Verdict::Unsent]);
        let bytes = self.bytes(&call);
        let end = 1 + usize::try_from(rng.below(bytes.len() as u64 - 2)).unwrap_or(0);
        let sent = self.stream.write_all(bytes.get(..end).unwrap_or_default()).await;
        tokio::time::sleep(Duration::from_millis(rng.below(60))).await;
        self.end(&call, Verdict::Unsent, b"");
        self.go(rng);
        sent
    }

    async fn leave_mid_answer(mut self, rng: &mut Rng) -> io::Result<()> {
        let long = rng.percent(50);
        let shape = if long { (1_000_000, 0) } else { (100, 400) };
        let call = self.begin(shape, &[Verdict::Left]);
        let sent = self.stream.write_all(&self.bytes(&call)).await;
        if long {
            let _ = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
        } else {
            tokio::time::sleep(Duration::from_millis(rng.below(300))).await;
        }
        self.end(&call, Verdict::Left, b"");
        self.go(rng);
        sent
    }

    /// Over TCP, who has ended its sending side still gets every answer (docs/message-doors.md). Elsewhere it counts as gone.
    async fn half_close(mut self, rng: &mut Rng) -> io::Result<()> {
        let extra: &[Verdict] = if self.door == Door::Tcp { &[] } else { &[Verdict::Cut] };
        let call = self.begin((100, rng.below(400)), extra);
        self.stream.write_all(&self.bytes(&call)).await?;
        self.stream.shutdown().await?;
        self.answer(&call).await;
        Ok(())
    }

    async fn drip(mut self, rng: &mut Rng) -> io::Result<()> {
        let call = self.begin((0, 0), &[Verdict::Cut, Verdict::Slow]);
        // Whole within the time that a request has, or not.
        let (at_once, drop) = if rng.percent(50) { (20, 5) } else { (1, 50) };
        for piece in self.bytes(&call).chunks(at_once) {
            if self.stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(drop)).await;
        }
        self.answer(&call).await;
        Ok(())
    }

    /// Waits for what comes of a call, and ends it.
    async fn answer(&mut self, call: &Call) {
        let (stream, received) = (&mut self.stream, &mut self.received);
        let verdict = match self.framing {
            None => match timeout(PATIENCE, http::response(stream, received)).await {
                Err(_) => Verdict::Lost,
                Ok(Err(_)) => Verdict::Cut,
                Ok(Ok(response)) => verdict::of(call, &response.answer()),
            },
            Some(framing) => {
                let end = Instant::now() + PATIENCE;
                loop {
                    match framing.take(received) {
                        Ok(Some(super::super::frames::Piece::Message(message))) => {
                            break verdict::of(call, &Answer { status: None, is_json: true, body: &message });
                        }
                        Ok(Some(super::super::frames::Piece::Close(_))) | Err(_) => break Verdict::Cut,
                        Ok(Some(_)) => continue,
                        Ok(None) => {}
                    }
                    match timeout(end.saturating_duration_since(Instant::now()), stream.read_buf(received)).await {
                        Err(_) => break Verdict::Lost,
                        Ok(Ok(1..)) => {}
                        Ok(_) => break Verdict::Cut,
                    }
                }
            }
        };
        self.end(call, verdict, &self.received);
    }
}
