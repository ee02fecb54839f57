//! Reads that are begun early, over a real socket pair.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::os::fd::AsRawFd;

use monoio::io::Splitable;

use super::*;

/// Only a connection that stays open is waited for so long.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// A connection's reading side on the runtime, and its other end outside of it.
fn pair() -> (ReadAhead, monoio::net::tcp::TcpOwnedWriteHalf, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    let near = monoio::net::TcpStream::from_std(near).unwrap();
    let fd = near.as_raw_fd();
    let (read, write) = near.into_split();
    (ReadAhead::new(fd, read), write, other)
}

fn on_every_driver(test: impl AsyncFn()) {
    let mut legacy = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap();
    legacy.block_on(test());
    if let Ok(mut uring) = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build() {
        uring.block_on(test());
    }
}

#[test]
fn what_arrives_while_nobody_waits_is_the_next_read() {
    on_every_driver(async || {
        let (read, _write, mut other) = pair();
        assert!(!read.is_reading());
        read.begin(Vec::with_capacity(64));
        assert!(read.is_reading() && !read.is_done(), "nothing has been sent");
        other.write_all(b"one").unwrap();
        read.done().await;
        assert!(read.is_done() && read.is_reading());
        // It is not begun a second time, so this buffer goes nowhere.
        read.begin(Vec::with_capacity(64));
        let (result, buf) = read.finish().await;
        assert_eq!((result.unwrap(), buf.as_slice()), (3, &b"one"[..]));
        assert!(!read.is_reading());
        read.begin(buf);
        other.write_all(b"two").unwrap();
        let (result, buf) = read.finish().await;
        assert_eq!((result.unwrap(), buf.as_slice()), (3, &b"onetwo"[..]), "appended");
    });
}

#[test]
fn an_end_is_seen_without_asking_the_kernel() {
    on_every_driver(async || {
        let (read, _write, other) = pair();
        read.begin(Vec::with_capacity(64));
        drop(other);
        read.done().await;
        assert!(read.is_done());
        assert_eq!(read.finish().await.0.unwrap(), 0);
    });
}

#[test]
fn an_end_that_the_runtime_has_not_been_told_of_is_known_to_the_kernel() {
    on_every_driver(async || {
        let (read, _write, other) = pair();
        read.begin(Vec::with_capacity(64));
        assert!(read.is_quiet_in_kernel());
        drop(other);
        // Nothing is awaited here, so the runtime learns of nothing.
        let start = std::time::Instant::now();
        while read.is_quiet_in_kernel() {
            assert!(start.elapsed() < std::time::Duration::from_secs(60), "the end is not seen");
        }
        assert_eq!(read.finish().await.0.unwrap(), 0, "and the read ends as well");
    });
}

#[test]
fn a_wait_that_is_dropped_loses_nothing() {
    on_every_driver(async || {
        let (read, _write, mut other) = pair();
        read.begin(Vec::with_capacity(64));
        {
            let mut given_up = std::pin::pin!(read.finish());
            assert!(given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        other.write_all(b"late").unwrap();
        assert_eq!(read.finish().await.1, b"late");
    });
}

#[test]
fn the_connection_is_closed_with_its_owner_though_a_read_is_under_way() {
    on_every_driver(async || {
        // The writing half lives on: it would end its side by itself when it is dropped.
        let (read, _write, other) = pair();
        read.begin(Vec::with_capacity(64));
        drop(read);
        // The other side's end of file is awaited on the runtime, so that the operation that is given up can be reaped.
        other.set_nonblocking(true).unwrap();
        let mut other = monoio::net::TcpStream::from_std(other).unwrap();
        let read = monoio::time::timeout(PATIENCE, other.read(Vec::with_capacity(8))).await;
        let (result, _) = read.expect("the connection is closed");
        assert_eq!(result.unwrap(), 0);
    });
}
