//! How long the gateway takes from its start to its first answered call.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::figures::Figures;
use super::super::process::{Running, TOKEN};
use super::super::report::{Cell, Column, Section, Table};
use super::super::small_call::{self, Dialect};

/// A start, or an end, that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a call is tried.
const STEP: Duration = Duration::from_micros(200);

/// Milliseconds of one start. The process is ended in good order behind it.
pub(super) fn one(command: &mut Command, dir: &Path, port: u16) -> io::Result<f64> {
    let log = dir.join("start.log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let took = loop {
        match call(address) {
            Ok(()) => break begun.elapsed(),
            Err(error) if begun.elapsed() > PATIENCE || child.try_wait()?.is_some() => {
                let _ = child.kill();
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(io::Error::other(format!("a start has failed: {error}; {said}")));
            }
            Err(_) => std::thread::park_timeout(STEP),
        }
    };
    terminate(&mut child)?;
    Ok(took.as_secs_f64() * 1000.0)
}

/// Ends a gateway in good order.
pub(super) fn end(mut running: Running) -> io::Result<()> {
    terminate(&mut running.child)
}

fn terminate(child: &mut Child) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let asked = Instant::now();
    while child.try_wait()?.is_none() {
        if asked.elapsed() > PATIENCE {
            return Err(io::Error::other("the gateway does not end"));
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

/// One call, answered with 200.
fn call(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut body = Vec::new();
    small_call::write_call(&mut body, 1, Dialect::Session);
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.into_bytes(), body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()))
    }
}

pub(super) fn section(tokens: usize, without: &[f64], with: &[f64]) -> Section {
    let mut table = Table::new("tokens", vec![Column::new("start to first answered call", "ms", 1)]);
    for (count, starts) in [(0, without), (tokens, with)] {
        table.row(count.to_string(), vec![Cell::from(starts.iter().copied().collect::<Figures>())]);
    }
    Section::new("Starts").note("Each a new process on the same data, with all cores; median (min–max).").table(table)
}
