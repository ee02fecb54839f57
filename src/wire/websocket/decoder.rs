//! Frames and messages (RFC 6455 §5), read in the buffer they arrived in.
//!
//! The caller appends what it receives to one `Vec` and asks for events until there is none. A message in one frame is
//! unmasked where it stands. A message in fragments is put together in the same place: each fragment moves down to the
//! end of the one before, over the headers and control frames between them. A payload is unmasked, checked and moved as
//! it arrives, every byte once, so a slow or finely cut message costs no more than a quick one.
//!
//! When there is no event left, the buffer holds the message that is being received and less than one header or control
//! frame behind it; between two messages it is empty, and the caller may free it. The decoder itself has no heap memory.
//!
//! What a peer can make us hold is bounded by `max_message_bytes`, which is compared with what the headers announce
//! before any of it is waited for. What a peer can make us do for nothing is bounded for empty frames here; control
//! frames come out as events, and how many are borne is the caller's to say.

use super::frame::{self, MAX_CONTROL_BYTES, MaskingKey, Opcode, Start};
use super::utf8::Utf8;
use super::{CloseCode, Fault, Role, Span};

/// Most empty frames of one message. One may well end a message whose end the sender did not foresee, and some libraries
/// flush with nothing to say; but nothing else bounds empty frames, as each other one uses up `max_message_bytes`.
pub const MAX_EMPTY_FRAMES: u8 = 64;

/// What was received. Spans are into the buffer, and end with the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A text message; it is UTF-8.
    Text(Span),
    /// A binary message.
    Binary(Span),
    /// A Ping, to be answered with a Pong of the same payload (RFC 6455 §5.5.2). Also comes between fragments.
    Ping(Span),
    /// A Pong, asked for or not (RFC 6455 §5.5.3). Also comes between fragments.
    Pong(Span),
    /// A Close, to be answered with one of the same code unless we sent ours before (RFC 6455 §5.5.1). Nothing comes
    /// after it.
    Close {
        /// Its code, if it has a body.
        code: Option<CloseCode>,
        /// Its reason; it is UTF-8.
        reason: Span,
    },
}

/// Incremental decoder of one direction of one connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    role: Role,
    max_message_bytes: u32,
    state: State,
    /// The message that has begun and not ended.
    message: Option<Message>,
    // Offsets into the buffer: start <= assembled <= read. Without a message the first two are the same.
    /// First byte of the message.
    start: usize,
    /// One past the last byte of the message so far.
    assembled: usize,
    /// One past the last byte that was dealt with.
    read: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Between two frames, or in a header or control frame that is not whole.
    Frame,
    /// In the payload of a data frame.
    Payload { missing: u32, fin: bool, key: MaskingKey },
    /// Behind a Close or a fault.
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    /// `None` for binary.
    text: Option<Utf8>,
    empty_frames: u8,
}

/// A whole header.
struct Header {
    start: Start,
    len: u32,
    /// All 0 without a mask, which changes nothing.
    key: MaskingKey,
    /// Its own bytes.
    size: usize,
}

impl Decoder {
    /// A decoder for messages of at most `max_message_bytes` of payload.
    #[must_use]
    pub const fn new(role: Role, max_message_bytes: u32) -> Self {
        Decoder { role, max_message_bytes, state: State::Frame, message: None, start: 0, assembled: 0, read: 0 }
    }

    /// The next event in `buf`. The caller appends what arrives to `buf` and does nothing else to it; what is dealt with
    /// is removed here. After `None` more bytes are needed; after a Close or a fault `None` is all that comes, and
    /// whatever else arrives is dropped.
    ///
    /// # Errors
    /// [`Fault`], as soon as it is certain.
    pub fn next_event(&mut self, buf: &mut Vec<u8>) -> Result<Option<Event>, Fault> {
        match self.advance(buf) {
            Ok(Some(event)) => return Ok(Some(event)),
            Ok(None) => {}
            Err(fault) => {
                self.end();
                buf.clear();
                return Err(fault);
            }
        }
        self.compact(buf);
        Ok(None)
    }

    /// Whether a message has begun and not ended. A deadline for a whole message runs while this is true, or while
    /// [`Decoder::next_event`] leaves anything in the buffer.
    #[must_use]
    pub const fn in_message(&self) -> bool {
        self.message.is_some()
    }

    /// Whether a Close or a fault has ended what can be received.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Payload bytes of the present frame that have not arrived: so many may be read at once without reading past it.
    /// 0 where the next bytes are a header. A peer's claim, within `max_message_bytes`: room is best made in steps.
    #[must_use]
    pub const fn missing_bytes(&self) -> u32 {
        match self.state {
            State::Payload { missing, .. } => missing,
            State::Frame | State::Ended => 0,
        }
    }

    fn advance(&mut self, buf: &mut Vec<u8>) -> Result<Option<Event>, Fault> {
        loop {
            match self.state {
                State::Ended => {
                    buf.clear();
                    return Ok(None);
                }
                State::Frame => {
                    let Some(header) = self.read_header(buf.get(self.read..).unwrap_or_default())? else {
                        return Ok(None);
                    };
                    if header.start.opcode.is_control() {
                        return self.control(&header, buf);
                    }
                    self.begin(&header)?;
                }
                State::Payload { missing, fin, key } => {
                    let taken = self.take_payload(buf, missing, key)?;
                    // `taken` is at most `missing`.
                    let missing = missing.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
                    if missing > 0 {
                        self.state = State::Payload { missing, fin, key: frame::advanced(key, taken) };
                        return Ok(None);
                    }
                    self.state = State::Frame;
                    if fin && let Some(message) = self.message.take() {
                        return self.finish(message).map(Some);
                    }
                }
            }
        }
    }

    /// The header that `bytes` begin with, when it is whole; its faults as soon as their byte is there.
    fn read_header(&self, bytes: &[u8]) -> Result<Option<Header>, Fault> {
        let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
        let start = Start::read(*first)?;
        match (start.opcode, self.message) {
            (Opcode::Continuation, None) => return Err(Fault::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Fault::ExpectedContinuation),
            _ => {}
        }
        let Some((second, rest)) = rest.split_first() else { return Ok(None) };
        let short = frame::short_length(*second, self.role)?;
        if start.opcode.is_control() && usize::from(short) > MAX_CONTROL_BYTES {
            return Err(Fault::LongControl);
        }
        let Some((len, len_size)) = frame::length(short, rest)? else { return Ok(None) };
        // A control frame is bounded by itself, and no part of the message that it may stand in.
        let allowed = if start.opcode.is_control() { u32::MAX } else { self.allowance() };
        let len = u32::try_from(len).ok().filter(|len| *len <= allowed).ok_or(Fault::TooBig)?;
        let size = len_size.saturating_add(2);
        match self.role {
            Role::Client => Ok(Some(Header { start, len, key: [0; 4], size })),
            Role::Server => {
                let key = rest.get(len_size..).and_then(|rest| rest.first_chunk::<4>());
                Ok(key.map(|key| Header { start, len, key: *key, size: size.saturating_add(4) }))
            }
        }
    }

    /// Payload bytes that the message may still get.
    fn allowance(&self) -> u32 {
        let received = u32::try_from(self.assembled.saturating_sub(self.start)).unwrap_or(u32::MAX);
        self.max_message_bytes.saturating_sub(received)
    }

    /// Begins a data frame.
    fn begin(&mut self, header: &Header) -> Result<(), Fault> {
        self.read = self.read.saturating_add(header.size);
        let message = self.message.get_or_insert_with(|| {
            // The first payload is where the message will be.
            (self.start, self.assembled) = (self.read, self.read);
            let text = (header.start.opcode == Opcode::Text).then(Utf8::default);
            Message { text, empty_frames: 0 }
        });
        if header.len == 0 {
            if message.empty_frames >= MAX_EMPTY_FRAMES {
                return Err(Fault::TooManyEmptyFrames);
            }
            message.empty_frames = message.empty_frames.saturating_add(1);
        }
        self.state = State::Payload { missing: header.len, fin: header.start.fin, key: header.key };
        Ok(())
    }

    /// Unmasks, checks and moves what has arrived of a payload; how many bytes that is.
    fn take_payload(&mut self, buf: &mut [u8], missing: u32, key: MaskingKey) -> Result<usize, Fault> {
        let end = buf.len().min(self.read.saturating_add(missing as usize));
        let fresh = buf.get_mut(self.read..end).unwrap_or_default();
        let taken = fresh.len();
        if self.role == Role::Server {
            frame::mask(fresh, key);
        }
        if let Some(Message { text: Some(utf8), .. }) = &mut self.message {
            utf8.push(fresh).map_err(|_| Fault::TextNotUtf8)?;
        }
        if taken > 0 && self.assembled != self.read {
            buf.copy_within(self.read..end, self.assembled);
        }
        self.read = self.read.saturating_add(taken);
        self.assembled = self.assembled.saturating_add(taken);
        Ok(taken)
    }

    fn finish(&mut self, message: Message) -> Result<Event, Fault> {
        let span = Span::from_usize(self.start, self.assembled);
        (self.start, self.assembled) = (self.read, self.read);
        match message.text {
            None => Ok(Event::Binary(span)),
            Some(utf8) if utf8.is_complete() => Ok(Event::Text(span)),
            Some(_) => Err(Fault::TextNotUtf8),
        }
    }

    /// Reads a control frame, when it is whole.
    fn control(&mut self, header: &Header, buf: &mut [u8]) -> Result<Option<Event>, Fault> {
        let from = self.read.saturating_add(header.size);
        let end = from.saturating_add(header.len as usize);
        let Some(payload) = buf.get_mut(from..end) else { return Ok(None) };
        frame::mask(payload, header.key);
        self.read = end;
        let span = Span::from_usize(from, end);
        Ok(Some(match header.start.opcode {
            Opcode::Ping => Event::Ping(span),
            Opcode::Pong => Event::Pong(span),
            _ => {
                let code = read_close(payload)?;
                self.end();
                Event::Close { code, reason: Span::new(span.start.saturating_add(2), span.end) }
            }
        }))
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.message = None;
        (self.start, self.assembled, self.read) = (0, 0, 0);
    }

    /// Removes what was dealt with: between the message and what is unread, and before the message. What moves is less
    /// than a header or control frame, and once for a message what has arrived of it.
    fn compact(&mut self, buf: &mut Vec<u8>) {
        for (from, to) in [(self.assembled, self.read), (0, self.start)] {
            if from < to && to <= buf.len() {
                buf.drain(from..to);
            }
        }
        self.assembled = self.assembled.saturating_sub(self.start);
        self.start = 0;
        self.read = self.assembled;
    }
}

/// The code of a Close, whose reason is checked as well (RFC 6455 §5.5.1).
fn read_close(body: &[u8]) -> Result<Option<CloseCode>, Fault> {
    let Some((code, reason)) = body.split_first_chunk::<2>() else {
        return if body.is_empty() { Ok(None) } else { Err(Fault::ShortCloseCode) };
    };
    let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(Fault::InvalidCloseCode)?;
    if std::str::from_utf8(reason).is_err() { Err(Fault::ReasonNotUtf8) } else { Ok(Some(code)) }
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod oracle;
#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
