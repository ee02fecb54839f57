//! An upstream on a socket: lines, or WebSocket messages. Calls are taken as they come; what is said goes through one queue, in order.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::super::call::{self, Call};
use super::super::fault::{Fault, Kind};
use super::super::frames::{self, Framing, Piece};
use super::{DROP, Disturbance, Shared, Ticket, courtesy, reset_at_close};

/// An id that no call over any connection has: it is above all that the gateway gives.
const NOBODYS_ID: &str = "9007199254740991";

/// Ids of answered calls that are remembered, for an answer that comes a second time.
const REMEMBERED: usize = 64;

/// What is to be written.
enum Out {
    /// Bytes, and the call that they answer.
    Bytes(Vec<u8>, Option<String>),
    /// Bytes one by one.
    Drip(Vec<u8>, String, Option<Disturbance>),
    /// The end of the connection: in good order, or by a reset.
    End { reset: bool },
}

/// One connection.
struct Connection {
    shared: Rc<Shared>,
    framing: Framing,
    out: UnboundedSender<Out>,
    /// Calls that are not answered, by the id that they have here.
    calls: Calls,
    answered: RefCell<VecDeque<String>>,
}

/// Serves a connection to its end.
pub(super) async fn serve(shared: &Rc<Shared>, mut stream: TcpStream) -> io::Result<()> {
    let mut received = Vec::new();
    let framing = match shared.kind {
        Kind::WebSocket => {
            let answer = loop {
                if stream.read_buf(&mut received).await? == 0 {
                    return Ok(());
                }
                if let Some((len, answer)) = frames::agree(&received)? {
                    received.drain(..len);
                    break answer;
                }
            };
            stream.write_all(answer.as_bytes()).await?;
            Framing::Frames { masked: false }
        }
        _ => Framing::Lines,
    };
    let (mut reading, writing) = stream.into_split();
    let (out, queue) = unbounded_channel();
    let calls = Calls::default();
    // Dropped with this function, the writing ends as well.
    let _writer = AbortOnDrop(spawn_local(write(writing, queue, Rc::clone(&calls))).abort_handle());
    let connection = Rc::new(Connection { shared: shared.clone(), framing, out, calls, answered: RefCell::default() });
    loop {
        while let Some(piece) = framing.take(&mut received)? {
            match piece {
                Piece::Message(message) => connection.hear(&message),
                Piece::Ping(payload) => connection.put(framing.pong(payload), None),
                Piece::Close(_) => {
                    connection.put(framing.goodbye(), None);
                    connection.end(false);
                }
                Piece::Nothing => {}
            }
        }
        if reading.read_buf(&mut received).await? == 0 {
            connection.calls.borrow_mut().clear();
            return Ok(());
        }
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Calls = Rc<RefCell<HashMap<String, (Ticket, Option<Disturbance>)>>>;

async fn write(mut stream: OwnedWriteHalf, mut queue: UnboundedReceiver<Out>, calls: Calls) {
    let land = |id: &str| {
        let landed = calls.borrow_mut().remove(id);
        if let Some((ticket, _)) = landed {
            ticket.answered();
        }
    };
    while let Some(out) = queue.recv().await {
        let written = match out {
            Out::Bytes(bytes, id) => {
                // Whoever has the answer may make the next call: it is not in flight any more.
                id.iter().for_each(|id| land(id));
                stream.write_all(&bytes).await
            }
            Out::Drip(bytes, id, _disturbance) => {
                let dripped = drip(&mut stream, &bytes).await;
                land(&id);
                dripped
            }
            Out::End { reset } => {
                if reset {
                    reset_at_close(stream.as_ref());
                    // Behind the reader's back: its next read ends.
                    let _ = rustix::net::shutdown(stream.as_ref(), rustix::net::Shutdown::Read);
                    return stream.forget();
                }
                let _ = stream.shutdown().await;
                return;
            }
        };
        if written.is_err() {
            return;
        }
    }
}

async fn drip(stream: &mut OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        tokio::time::sleep(DROP).await;
    }
    Ok(())
}

impl Connection {
    fn put(&self, bytes: Vec<u8>, answers: Option<&str>) {
        // Without a writer the connection is at its end.
        let _ = self.out.send(Out::Bytes(bytes, answers.map(str::to_owned)));
    }

    fn end(&self, reset: bool) {
        let _ = self.out.send(Out::End { reset });
    }

    fn hear(self: &Rc<Self>, message: &[u8]) {
        let Some(asked) = call::read(message) else { return };
        if let Some(cancelled) = &asked.cancels {
            self.calls.borrow_mut().remove(cancelled);
            return;
        }
        let Some((call, id)) = asked.call.zip(asked.id.clone()) else {
            if let Some(answer) = courtesy(&asked) {
                self.put(self.framing.message(&answer), None);
            }
            return;
        };
        self.shared.ledger.seen(call.number, self.shared.index);
        let ticket = self.shared.take_off(&id);
        self.calls.borrow_mut().insert(id.clone(), (ticket, None));
        if call.delay_ms == 0 {
            return self.act(&call, &id);
        }
        let connection = self.clone();
        spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(call.delay_ms)).await;
            connection.act(&call, &id);
        });
    }

    /// Does what the call says.
    fn act(&self, call: &Call, id: &str) {
        let disturbance = self.shared.disturbance(call.fault);
        let message = |text: &str| self.framing.message(text);
        let right = || message(&call.answer(id));
        match call.fault {
            Fault::None | Fault::Oversize => self.put(right(), Some(id)),
            Fault::Twice => self.put([right(), right()].concat(), Some(id)),
            Fault::Error => self.put(message(&call.error(id)), Some(id)),
            Fault::ContentType => {
                self.put(self.framing.frame(call.answer(id).into_bytes(), OpCode::Data(Data::Binary)), Some(id))
            }
            Fault::WrongId => {
                self.put(message(&call.answer(&format!("\"nobody-{}\"", call.number))), None);
                self.hold(id, disturbance);
            }
            Fault::OthersId => {
                let ended = self.answered.borrow().front().cloned();
                self.put(message(&call.answer(ended.as_deref().unwrap_or(NOBODYS_ID))), None);
                self.hold(id, disturbance);
            }
            Fault::Stall => self.hold(id, disturbance),
            Fault::Drip => {
                let _ = self.out.send(Out::Drip(right(), id.to_owned(), disturbance));
            }
            Fault::Garbage => {
                self.put(self.garbage(call), None);
                self.hold(id, disturbance);
            }
            Fault::Reset | Fault::Half => {
                let answer = right();
                let half = answer.get(..answer.len() / 2).unwrap_or_default().to_vec();
                self.put(half, None);
                self.end(call.fault == Fault::Reset);
            }
            Fault::IdleReset => {
                self.put(right(), Some(id));
                self.end(true);
            }
        }
        if call.fault == Fault::None {
            let mut answered = self.answered.borrow_mut();
            answered.push_back(id.to_owned());
            if answered.len() > REMEMBERED {
                answered.pop_front();
            }
        }
    }

    /// The call stays unanswered, and others may notice, until the gateway lets go of it.
    fn hold(&self, id: &str, disturbance: Option<Disturbance>) {
        if let Some((_, held)) = self.calls.borrow_mut().get_mut(id) {
            *held = disturbance;
        }
    }

    fn garbage(&self, call: &Call) -> Vec<u8> {
        match (self.framing, call.number % 3) {
            (Framing::Lines, 0) => b"\x16\x03\x01\x00\xa5\x01\n".to_vec(),
            (Framing::Lines, 1) => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            (_, 1) => self.framing.message("HTTP/1.1 400 Bad Request"),
            // A reserved opcode; a control frame that is longer than one may be.
            (Framing::Frames { .. }, 0) => vec![0x83, 0x02, b'h', b'i'],
            (Framing::Frames { .. }, _) if call.number.is_multiple_of(2) => {
                self.framing.frame(vec![0; 200], OpCode::Control(Control::Ping))
            }
            _ => self.framing.message(r#"{"jsonrpc":"2.0","id":"#),
        }
    }
}
