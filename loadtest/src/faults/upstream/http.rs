//! An upstream over Streamable HTTP: a connection, a request at a time.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::call::{self, Call};
use super::super::fault::Fault;
use super::{DROP, Shared, Ticket, courtesy, reset_at_close};

/// Longest request of the harness's own.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

struct Request {
    method: String,
    body: Vec<u8>,
}

/// Serves a connection to its end.
pub(super) async fn serve(shared: &Rc<Shared>, mut stream: TcpStream) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let Some(request) = next_request(&mut stream, &mut received).await? else { return Ok(()) };
        if request.method != "POST" {
            stream.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n").await?;
            continue;
        }
        let Some(asked) = call::read(&request.body) else { return Err(io::ErrorKind::InvalidData.into()) };
        let Some((call, id)) = asked.call.zip(asked.id.clone()) else {
            match courtesy(&asked) {
                Some(answer) => stream.write_all(&whole(&answer, "application/json", false)).await?,
                None => stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await?,
            }
            continue;
        };
        shared.ledger.seen(call.number, shared.index);
        let ticket = shared.take_off(&id);
        if !act(shared, &mut stream, &call, &id, ticket).await? {
            return Ok(());
        }
    }
}

/// Does what the call says. Returns whether the connection goes on.
async fn act(shared: &Rc<Shared>, stream: &mut TcpStream, call: &Call, id: &str, ticket: Ticket) -> io::Result<bool> {
    if !pause(stream, Duration::from_millis(call.delay_ms)).await {
        return Ok(false);
    }
    let _disturbance = shared.disturbance(call.fault);
    let json = "application/json";
    let right = || whole(&call.answer(id), json, call.number.is_multiple_of(5));
    let odd = !call.number.is_multiple_of(2);
    let said = match call.fault {
        Fault::None | Fault::Oversize => right(),
        Fault::Twice => [right(), right()].concat(),
        Fault::ContentType => whole(&call.answer(id), "text/html", false),
        Fault::WrongId => whole(&call.answer(&format!("\"nobody-{}\"", call.number)), json, false),
        Fault::OthersId => whole(&call.answer(&shared.anothers_id(id).unwrap_or("4711".to_owned())), json, false),
        Fault::Error => format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{}",
            call::page(call.number).len(),
            call::page(call.number)
        )
        .into_bytes(),
        Fault::Stall => {
            while pause(stream, Duration::from_secs(60)).await {}
            return Ok(false);
        }
        Fault::Reset | Fault::Half => {
            let answer = right();
            // In the head, or in the body.
            let end = if odd { 20 } else { answer.len() - call.size / 2 - 10 };
            stream.write_all(answer.get(..end).unwrap_or_default()).await?;
            if call.fault == Fault::Half {
                stream.shutdown().await?;
                while pause(stream, Duration::from_secs(60)).await {}
            } else {
                pause(stream, Duration::from_millis(5)).await;
                reset_at_close(stream);
            }
            return Ok(false);
        }
        Fault::IdleReset => {
            ticket.answered();
            stream.write_all(&right()).await?;
            // It rests, or has been taken for the next call.
            tokio::time::sleep(Duration::from_millis(call.number % 40)).await;
            reset_at_close(stream);
            return Ok(false);
        }
        Fault::Garbage => {
            let garbage: &[u8] = match call.number % 4 {
                0 => b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
                1 => b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
                2 => b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: -5\r\n\r\n{}",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            };
            stream.write_all(garbage).await?;
            while pause(stream, Duration::from_secs(60)).await {}
            return Ok(false);
        }
        Fault::Drip => {
            let answer = right();
            let head = if odd { 0 } else { answer.len().saturating_sub(110) };
            stream.write_all(answer.get(..head).unwrap_or_default()).await?;
            for byte in answer.get(head..).unwrap_or_default() {
                stream.write_all(&[*byte]).await?;
                if !pause(stream, DROP).await {
                    return Ok(false);
                }
            }
            ticket.answered();
            return Ok(true);
        }
    };
    // Whoever has the answer may make the next call: it is not in flight any more.
    ticket.answered();
    stream.write_all(&said).await?;
    Ok(true)
}

/// Waits, and looks whether the gateway is still there.
async fn pause(stream: &mut TcpStream, time: Duration) -> bool {
    if time.is_zero() {
        return true;
    }
    // Nothing is sent behind a request that is not answered: what can be read is the end.
    tokio::time::timeout(time, stream.read(&mut [0; 64])).await.is_err()
}

fn whole(body: &str, media_type: &str, chunked: bool) -> Vec<u8> {
    if chunked {
        return format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
        .into_bytes();
    }
    format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

async fn next_request(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if let Some((len, request)) = whole_request(received)? {
            received.drain(..len);
            return Ok(Some(request));
        }
        if received.len() > MAX_REQUEST_BYTES || stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

fn whole_request(received: &[u8]) -> io::Result<Option<(usize, Request)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(received).map_err(io::Error::other)? else { return Ok(None) };
    let length = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()).unwrap_or(0);
    let Some(body) = received.get(head..head + length) else { return Ok(None) };
    let method = parsed.method.unwrap_or_default().to_owned();
    Ok(Some((head + length, Request { method, body: body.to_vec() })))
}
