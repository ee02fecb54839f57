//! The bare relay that `lines` compares with: bytes in, bytes out, nothing looked at.
//!
//! One connection to the upstream for each that is accepted, one task a direction: read into a buffer of 64 KiB, write all of it.

use std::io;
use std::net::SocketAddr;

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Splitable};
use monoio::net::{TcpListener, TcpStream};

/// Arguments of `loadtest relay`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port on the loopback address
    #[arg(long)]
    port: u16,
    /// Port of the upstream
    #[arg(long)]
    upstream: u16,
}

const BUFFER_BYTES: usize = 64 * 1024;

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let upstream = SocketAddr::from(([127, 0, 0, 1], args.upstream));
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().with_entries(4096).build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], args.port)))?;
        loop {
            let (client, _) = listener.accept().await?;
            monoio::spawn(async move {
                // A connection that cannot be made is closed, which the client sees.
                if let Ok(server) = TcpStream::connect_addr(upstream).await {
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (client_read, client_write) = client.into_split();
                    let (server_read, server_write) = server.into_split();
                    monoio::spawn(pass(client_read, server_write));
                    pass(server_read, client_write).await;
                }
            });
        }
    })
}

/// Passes bytes on until one side has ended; then the other is told.
async fn pass(mut from: impl AsyncReadRent, mut to: impl AsyncWriteRent) {
    let mut buffer: Vec<u8> = Vec::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        let (result, filled) = from.read(buffer).await;
        if !matches!(result, Ok(n) if n > 0) {
            break;
        }
        let (result, written) = to.write_all(filled).await;
        buffer = written;
        if result.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
