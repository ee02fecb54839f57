//! The generator: connections that keep a window of calls in flight each, and look at every answer.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

use super::super::small_call::{self, Dialect};
use super::flight::Flight;

/// Without any answer for this long, a run has stalled.
const STALL: Duration = Duration::from_secs(10);

const READ_BYTES: usize = 64 * 1024;

/// What is driven, and how.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) to: SocketAddr,
    /// Who is behind `to`: what is between us and the echo may want to know who we are.
    pub(crate) token: Option<&'a str>,
    pub(crate) dialect: Dialect,
    pub(crate) connections: usize,
    pub(crate) window: usize,
    pub(crate) calls: u64,
}

/// What all connections share.
struct Progress {
    left_to_begin: Cell<u64>,
    answered: Cell<u64>,
}

/// Connections that are ready to make calls. What stands stays over the rounds.
pub(crate) struct Generator {
    runtime: monoio::FusionRuntime<
        monoio::time::TimeDriver<monoio::IoUringDriver>,
        monoio::time::TimeDriver<monoio::LegacyDriver>,
    >,
}

impl Generator {
    pub(crate) fn new() -> io::Result<Self> {
        let builder = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().with_entries(4096).enable_timer();
        Ok(Self { runtime: builder.build()? })
    }

    /// Connects, opens sessions, then makes `load.calls` calls and waits for all answers. Returns the time from the first call to the last answer.
    pub(crate) fn drive(&mut self, load: &Load<'_>) -> io::Result<Duration> {
        let (load, token) = (*load, load.token.map(str::to_owned));
        let progress = Rc::new(Progress { left_to_begin: Cell::new(load.calls), answered: Cell::new(0) });
        let (to, dialect, window) = (load.to, load.dialect, load.window);
        self.runtime.block_on(async move {
            let mut ready = Vec::new();
            for _ in 0..load.connections {
                let opening = open(to, token.as_deref(), dialect);
                let opened = monoio::time::timeout(STALL, opening).await;
                ready.push(opened.map_err(|_| stalled("a session was not opened"))??);
            }
            let started = Instant::now();
            let tasks: Vec<_> = ready
                .into_iter()
                .map(|stream| monoio::spawn(one_connection(stream, dialect, window, progress.clone())))
                .collect();
            let all = async {
                for task in tasks {
                    task.await?;
                }
                Ok(started.elapsed())
            };
            monoio::select! {
                done = all => done,
                error = watch(&progress, load.calls) => Err(error),
            }
        })
    }
}

fn stalled(what: &str) -> io::Error {
    io::Error::other(format!("stalled: {what} within {} s", STALL.as_secs()))
}

/// Ends when no answer comes any more.
async fn watch(progress: &Progress, calls: u64) -> io::Error {
    loop {
        let before = progress.answered.get();
        monoio::time::sleep(STALL).await;
        if progress.answered.get() == before {
            let begun = calls - progress.left_to_begin.get();
            return stalled(&format!("{begun} calls begun, {before} answered, none more"));
        }
    }
}

async fn open(to: SocketAddr, token: Option<&str>, dialect: Dialect) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_addr(to).await?;
    stream.set_nodelay(true)?;
    if let Some(token) = token {
        let answer = ask(&mut stream, small_call::authenticate(token)).await?;
        if answer != br#"{"jsonrpc":"2.0","id":0,"result":{"authenticated":true}}"# {
            return Err(wrong(&answer));
        }
    }
    if dialect == Dialect::Session {
        let answer = ask(&mut stream, small_call::initialize()).await?;
        if !answer.starts_with(br#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25""#) {
            return Err(wrong(&answer));
        }
        stream.write_all(small_call::INITIALIZED.as_bytes().to_vec()).await.0?;
    }
    Ok(stream)
}

/// Sends one line and reads one.
async fn ask(stream: &mut TcpStream, line: String) -> io::Result<Vec<u8>> {
    stream.write_all(line.into_bytes()).await.0?;
    let mut answer = Vec::with_capacity(4096);
    while answer.last() != Some(&b'\n') {
        let start = answer.len();
        let (result, slice) = stream.read(answer.slice_mut(start..)).await;
        answer = slice.into_inner();
        if result? == 0 {
            return Err(io::Error::other("closed before the session was open"));
        }
        answer.reserve(4096);
    }
    answer.pop();
    Ok(answer)
}

fn wrong(answer: &[u8]) -> io::Error {
    let shown = String::from_utf8_lossy(answer.get(..answer.len().min(300)).unwrap_or_default()).into_owned();
    io::Error::other(format!("a wrong answer: {shown}"))
}

async fn one_connection(
    mut stream: TcpStream,
    dialect: Dialect,
    window: usize,
    progress: Rc<Progress>,
) -> io::Result<()> {
    let mut flight = Flight::new(window);
    let mut received: Vec<u8> = Vec::with_capacity(READ_BYTES);
    let mut calls = Vec::with_capacity(READ_BYTES);
    loop {
        while progress.left_to_begin.get() > 0 {
            let Some(id) = flight.begin() else { break };
            progress.left_to_begin.set(progress.left_to_begin.get() - 1);
            small_call::write_call(&mut calls, id, dialect);
            calls.push(b'\n');
        }
        if !calls.is_empty() {
            let (result, mut buffer) = stream.write_all(calls).await;
            result?;
            buffer.clear();
            calls = buffer;
        }
        if flight.len() == 0 {
            return if received.is_empty() { Ok(()) } else { Err(wrong(&received)) };
        }
        let start = received.len();
        let (result, slice) = stream.read(received.slice_mut(start..)).await;
        received = slice.into_inner();
        if result? == 0 {
            return Err(io::Error::other(format!("closed while {} calls were in flight", flight.len())));
        }
        let mut at = 0;
        for end in memchr::memchr_iter(b'\n', &received) {
            let line = received.get(at..end).unwrap_or_default();
            if let Err(fault) = flight.end(line) {
                return Err(io::Error::other(format!("{fault:?}: {}", wrong(line))));
            }
            progress.answered.set(progress.answered.get() + 1);
            at = end + 1;
        }
        received.drain(..at);
        received.reserve(READ_BYTES / 2);
    }
}
