//! System calls on sockets that the runtime has no safe name for.
//!
//! All of them act at once and never block. They take a raw descriptor because the runtime owns the socket: the caller
//! promises that it holds the stream open for the duration of the call, which every caller does by borrowing it. Were the
//! descriptor stale, the kernel would answer `EBADF` or act on another socket of ours; memory is safe either way.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// Which half of a connection to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// No more reading: a pending receive completes with what is there, then with end-of-file.
    Read,
    /// No more writing: the peer sees end-of-file once the send queue is empty.
    Write,
    /// Both: every pending operation completes.
    Both,
}

/// `shutdown(2)`. A socket that is no longer connected is not an error to us.
pub(crate) fn shutdown(fd: RawFd, half: Half) {
    let how = match half {
        Half::Read => libc::SHUT_RD,
        Half::Write => libc::SHUT_WR,
        Half::Both => libc::SHUT_RDWR,
    };
    // SAFETY: passes two integers; no memory is shared with the kernel.
    let _ = unsafe { libc::shutdown(fd, how) };
}

/// What a look at a socket without waiting has shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// This many bytes were appended to the buffer.
    Bytes(usize),
    /// Nothing to read now.
    Quiet,
    /// End of file, or an error: the peer is gone.
    Gone,
}

/// Appends what the socket holds to `buf`, up to its spare capacity, without waiting.
pub(crate) fn receive_now(fd: RawFd, buf: &mut Vec<u8>) -> Look {
    let spare = buf.spare_capacity_mut();
    if spare.is_empty() {
        return Look::Quiet;
    }
    // SAFETY: the pointer and length describe the vector's own spare capacity, which is writable for that many bytes.
    let n = unsafe { libc::recv(fd, spare.as_mut_ptr().cast(), spare.len(), libc::MSG_DONTWAIT) };
    match usize::try_from(n) {
        Ok(0) => Look::Gone,
        Ok(n) => {
            let len = buf.len() + n;
            // SAFETY: the kernel has just initialized `n` bytes right behind the old length, and n <= spare.len().
            unsafe { buf.set_len(len) };
            Look::Bytes(n)
        }
        Err(_) => would_block(),
    }
}

/// Hands as much of `bytes` to the kernel as it takes at once. Returns how much that was.
pub(crate) fn send_now(fd: RawFd, bytes: &[u8]) -> usize {
    // SAFETY: the pointer and length describe `bytes`, which the kernel only reads.
    let n = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(n).unwrap_or(0)
}

/// Whether an idle connection is still usable: nothing to read and no end-of-file. Reads nothing.
pub(crate) fn peek(fd: RawFd) -> Look {
    let mut byte = MaybeUninit::<u8>::uninit();
    // SAFETY: the kernel may write one byte to `byte`, which outlives the call; its value is never read.
    let n = unsafe { libc::recv(fd, byte.as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT | libc::MSG_PEEK) };
    match n {
        0 => Look::Gone,
        n if n > 0 => Look::Bytes(1),
        _ => would_block(),
    }
}

fn would_block() -> Look {
    match io::Error::last_os_error().kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Look::Quiet,
        _ => Look::Gone,
    }
}

/// Offset of `tcpi_bytes_acked` in Linux's `struct tcp_info` (`include/uapi/linux/tcp.h`, since 4.1): 8 octets, 24 words of 32
/// bits, two of 64. The layout is kernel ABI and only ever grows at its end.
const BYTES_ACKED_OFFSET: usize = 8 + 24 * 4 + 2 * 8;

/// How many bytes the peer's kernel has acknowledged since the connection was opened (the SYN counts as one). `None` where the kernel does
/// not say.
pub(crate) fn bytes_acknowledged(fd: RawFd) -> Option<u64> {
    let mut info = [0u8; 256];
    let mut len = libc::socklen_t::try_from(info.len()).ok()?;
    // SAFETY: `info` and `len` are live for the call, and `len` says how much of `info` may be written.
    let rc = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len) };
    let end = BYTES_ACKED_OFFSET + 8;
    if rc != 0 || (len as usize) < end {
        return None;
    }
    let field = info.get(BYTES_ACKED_OFFSET..end)?;
    Some(u64::from_ne_bytes(field.try_into().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[allow(clippy::disallowed_methods, reason = "the threads of a test are its own")]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (b, _) = listener.accept().unwrap();
        (a, b)
    }

    /// Polls `f` until it says yes: loopback delivers asynchronously.
    fn eventually(mut f: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if f() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[test]
    fn peek_tells_quiet_data_and_end() {
        let (a, mut b) = pair();
        assert_eq!(peek(a.as_raw_fd()), Look::Quiet);
        b.write_all(b"x").unwrap();
        assert!(eventually(|| peek(a.as_raw_fd()) == Look::Bytes(1)));
        let mut buf = Vec::with_capacity(8);
        assert_eq!(receive_now(a.as_raw_fd(), &mut buf), Look::Bytes(1));
        assert_eq!(buf, b"x");
        drop(b);
        assert!(eventually(|| peek(a.as_raw_fd()) == Look::Gone));
        assert_eq!(receive_now(a.as_raw_fd(), &mut buf), Look::Gone);
    }

    #[test]
    fn a_full_buffer_is_quiet_rather_than_the_end() {
        let (a, mut b) = pair();
        b.write_all(b"x").unwrap();
        let mut buf = Vec::new();
        assert_eq!(receive_now(a.as_raw_fd(), &mut buf), Look::Quiet);
    }

    #[test]
    fn shutdown_ends_a_pending_read() {
        let (mut a, _b) = pair();
        let fd = a.as_raw_fd();
        let reader = std::thread::spawn(move || a.read(&mut [0; 1]).map(|n| (n, a)));
        shutdown(fd, Half::Read);
        assert_eq!(reader.join().unwrap().unwrap().0, 0);
    }

    #[test]
    fn acknowledged_bytes_grow_with_what_the_peer_took() {
        let (mut a, b) = pair();
        let before = bytes_acknowledged(a.as_raw_fd()).unwrap();
        a.write_all(&[7; 100]).unwrap();
        assert!(eventually(|| bytes_acknowledged(a.as_raw_fd()).unwrap() == before + 100));
        drop(b);
    }

    #[test]
    fn a_request_sent_to_a_closed_peer_is_never_acknowledged() {
        let (mut a, b) = pair();
        a.write_all(&[7; 10]).unwrap();
        assert!(eventually(|| bytes_acknowledged(a.as_raw_fd()).unwrap() >= 10));
        let before = bytes_acknowledged(a.as_raw_fd()).unwrap();
        let mut b2 = b.try_clone().unwrap();
        b2.read_exact(&mut [0; 10]).unwrap();
        drop((b, b2));
        // The peer has closed: what we send now is answered by a reset.
        let _ = a.write_all(&[7; 100]);
        assert!(eventually(|| peek(a.as_raw_fd()) == Look::Gone));
        assert!(bytes_acknowledged(a.as_raw_fd()).unwrap() <= before + 1);
    }
}
