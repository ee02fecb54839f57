//! The sample upstream: reads requests off kept-alive connections and answers each at once with a tool result that echoes its id.

use std::io;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};

/// Arguments of `loadtest upstream`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port on the loopback address
    #[arg(long)]
    port: u16,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let address = format!("127.0.0.1:{}", args.port);
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().with_entries(4096).build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(address)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) {
    let mut received = Vec::with_capacity(16 * 1024);
    let mut answers = Vec::with_capacity(16 * 1024);
    loop {
        while let Some((len, id)) = request(&received) {
            let body = answer(&id);
            answers.extend_from_slice(
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len())
                    .as_bytes(),
            );
            answers.extend_from_slice(body.as_bytes());
            received.drain(..len);
        }
        if !answers.is_empty() {
            let (result, mut buffer) = stream.write_all(answers).await;
            if result.is_err() {
                return;
            }
            buffer.clear();
            answers = buffer;
        }
        received.reserve(8 * 1024);
        let start = received.len();
        let slice = monoio::buf::IoBufMut::slice_mut(received, start..);
        let (result, slice) = stream.read(slice).await;
        received = slice.into_inner();
        if !matches!(result, Ok(n) if n > 0) {
            return;
        }
    }
}

/// The length of the first whole request and its JSON-RPC id.
fn request(bytes: &[u8]) -> Option<(usize, String)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(bytes).ok()? else { return None };
    let length = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = std::str::from_utf8(length?.value).ok()?.parse().ok()?;
    let body = std::str::from_utf8(bytes.get(head..head + length)?).ok()?;
    let id = body.split("\"id\":").nth(1)?.split(',').next()?;
    Some((head + length, id.to_owned()))
}

/// The answer to the call with this id.
pub(crate) fn answer(id: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[{{\"type\":\"text\",\"text\":\"Message queued\"}}],\"isError\":false}}}}"
    )
}
