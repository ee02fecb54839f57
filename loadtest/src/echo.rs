//! The upstream of `lines` and `idle`: a thread of this process that answers every line at once.
//!
//! It looks for the id and parses nothing else. What one read has brought is answered with one write.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;

use memchr::memmem;
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};

use super::{cpu, small_call};

/// Name of the thread.
pub(crate) const THREAD: &str = "echo";

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;

/// Starts the thread, pinned to `core`, which lives as long as the process. Returns where it listens.
pub(crate) fn start(port: u16, core: usize) -> io::Result<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        if let Err(error) = cpu::pin(0, core).and_then(|()| listen(address, &sender)) {
            // Whoever waits for it hears of it; afterwards the calls fail, which is noticed there.
            let _ = sender.send(Err(error));
        }
    })?;
    receiver.recv().map_err(io::Error::other)??;
    Ok(address)
}

fn listen(address: SocketAddr, ready: &mpsc::Sender<io::Result<()>>) -> io::Result<()> {
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().with_entries(4096).build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address)?;
        let _ = ready.send(Ok(()));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) {
    let mut received: Vec<u8> = Vec::with_capacity(READ_BYTES);
    let mut answers = Vec::with_capacity(READ_BYTES);
    loop {
        let start = received.len();
        let (result, slice) = stream.read(received.slice_mut(start..)).await;
        received = slice.into_inner();
        if !matches!(result, Ok(n) if n > 0) {
            return;
        }
        let mut at = 0;
        for end in memchr::memchr_iter(b'\n', &received) {
            answer(&mut answers, received.get(at..end).unwrap_or_default());
            at = end + 1;
        }
        received.drain(..at);
        received.reserve(READ_BYTES / 2);
        if !answers.is_empty() {
            let (result, mut buffer) = stream.write_all(answers).await;
            if result.is_err() {
                return;
            }
            buffer.clear();
            answers = buffer;
        }
    }
}

/// Appends the answer to one message, if it asks for one.
pub(crate) fn answer(out: &mut Vec<u8>, message: &[u8]) {
    let Some((id, rest)) = find_id(message) else { return };
    if rest.starts_with(br#","method":"initialize""#) {
        small_call::write_initialized(out, id);
    } else {
        small_call::write_answer(out, id);
    }
    out.push(b'\n');
}

/// The token behind the first `"id":` of a message, and what follows it. Enough for the messages of this tool, which have their id in front of
/// everything that could hold another.
fn find_id(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let key = br#""id":"#;
    let token = message.get(memmem::find(message, key)? + key.len()..)?;
    let len = match token.first()? {
        b'"' => memchr::memchr(b'"', token.get(1..)?)? + 2,
        _ => token.iter().position(|byte| !byte.is_ascii_digit())?,
    };
    if len == 0 { None } else { token.split_at_checked(len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_whatever_its_kind() {
        let found = |message: &'static str| {
            find_id(message.as_bytes()).map(|(id, _)| std::str::from_utf8(id).unwrap_or_default())
        };
        for (message, id) in [
            (r#"{"jsonrpc":"2.0","id":17,"method":"tools/call"}"#, Some("17")),
            (r#"{"jsonrpc":"2.0","id":"a b","method":"tools/call"}"#, Some("\"a b\"")),
            (r#"{"id":0}"#, Some("0")),
            (r#"{"id":"#, None),
            (r#"{"id":"open"#, None),
            (r#"{"id":12"#, None),
            (r#"{"id":null}"#, None),
            (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, None),
            ("", None),
        ] {
            assert_eq!(found(message), id, "{message}");
        }
    }

    #[test]
    fn a_call_gets_the_answer_that_is_expected_of_it() {
        for dialect in [small_call::Dialect::Session, small_call::Dialect::Modern] {
            let (mut call, mut out) = (Vec::new(), Vec::new());
            small_call::write_call(&mut call, 90_071, dialect);
            answer(&mut out, &call);
            assert_eq!(out.strip_suffix(b"\n").and_then(small_call::answered_id), Some(90_071));
        }
        let mut out = Vec::new();
        answer(&mut out, small_call::INITIALIZED.trim_ascii().as_bytes());
        assert!(out.is_empty());
        answer(&mut out, small_call::initialize().trim_ascii().as_bytes());
        assert!(out.starts_with(br#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25""#));
    }
}
