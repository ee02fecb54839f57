//! The generator: closed loops over kept-alive connections, every answer checked.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

/// What one run has shown.
pub(crate) struct Driven {
    pub(crate) calls: u64,
    pub(crate) took: Duration,
    /// Nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

/// A call of 291 bytes, as an agent sends it.
fn body(id: u64) -> String {
    let start = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id:08},\"method\":\"tools/call\",\"params\":{{\"name\":\"comms_send_message\",\"arguments\":{{\"to\":\"+15551234567\",\"body\":\"").replace(&format!("{id:08}"), &format!("{}", 10_000_000 + id));
    let end = "\"}}}";
    let text =
        "Hello, your table for four is confirmed for Friday at seven. Reply to this message if anything changes. ";
    let room = 291 - start.len() - end.len();
    let filled: String = text.chars().cycle().take(room).collect();
    format!("{start}{filled}{end}")
}

/// Makes `calls` calls over `connections` connections, each with one call at a time.
pub(crate) fn drive(to: SocketAddr, token: &str, connections: usize, calls: u64) -> io::Result<Driven> {
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().with_entries(4096).build()?;
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {to}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\nContent-Length: 291\r\n\r\n"
    );
    let latency = Rc::new(RefCell::new(Histogram::new_with_max(60_000_000_000, 3).map_err(io::Error::other)?));
    let next = Rc::new(Cell::new(0));
    let started = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..connections)
            .map(|_| monoio::spawn(one_connection(to, head.clone(), next.clone(), calls, latency.clone())))
            .collect();
        for task in tasks {
            task.await?;
        }
        Ok::<(), io::Error>(())
    })?;
    let latency = latency.borrow().clone();
    Ok(Driven { calls, took: started.elapsed(), latency })
}

async fn one_connection(
    to: SocketAddr,
    head: String,
    next: Rc<Cell<u64>>,
    calls: u64,
    latency: Rc<RefCell<Histogram<u64>>>,
) -> io::Result<()> {
    let mut stream = TcpStream::connect_addr(to).await?;
    stream.set_nodelay(true)?;
    let mut received = Vec::with_capacity(8 * 1024);
    loop {
        let id = next.get();
        if id >= calls {
            return Ok(());
        }
        next.set(id + 1);
        let mut request = head.clone().into_bytes();
        request.extend_from_slice(body(id).as_bytes());
        let expected = super::upstream::answer(&format!("{}", 10_000_000 + id));
        let started = Instant::now();
        stream.write_all(request).await.0?;
        received.clear();
        loop {
            let start = received.len();
            let slice = monoio::buf::IoBufMut::slice_mut(received, start..);
            let (result, slice) = stream.read(slice).await;
            received = slice.into_inner();
            if result? == 0 {
                return Err(io::Error::other("the connection was closed before the answer was whole"));
            }
            if received.ends_with(expected.as_bytes()) && received.starts_with(b"HTTP/1.1 200 ") {
                break;
            }
            if received.len() > 4096 {
                return Err(io::Error::other("a wrong answer"));
            }
            received.reserve(4096);
        }
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        latency.borrow_mut().saturating_record(took);
    }
}
