//! Waiting for many sockets at once: epoll, level-triggered.
//!
//! Generator and upstream share a core with each other, so what they do for a call beside its two socket operations is what their figures
//! are spoilt by. epoll is taken rather than the runtime of the gateway for three reasons: a call leaves with the system call that sends it, not
//! with the end of a turn, so that the measured side begins while the rest of a turn is still being sent; a wait ends on the nanosecond that a
//! schedule names, not on a millisecond; and what is measured is not asked to measure itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

/// Events that one wait can bring.
const EVENTS: usize = 256;

/// Sockets that are waited for.
pub(crate) struct Poll {
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
}

/// What a wait has brought for one socket.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    /// As it was given with the socket.
    pub(crate) token: u64,
    /// Bytes, the end, or an error can be read; otherwise there is room to write.
    pub(crate) readable: bool,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, ready: Vec::with_capacity(EVENTS) })
    }

    /// Begins to wait until there is something to read.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Also waits until there is room to write, or no longer does.
    pub(crate) fn want_room(&self, socket: impl AsFd, token: u64, wanted: bool) -> io::Result<()> {
        let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token), flags)?)
    }

    /// Waits for one event or until the time has passed; returns how many there are.
    pub(crate) fn wait(&mut self, at_most: Option<Duration>) -> io::Result<usize> {
        let timeout = at_most.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        self.ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), timeout.as_ref()) {
            Ok(found) => Ok(found),
            // A signal, such as that of a debugger: as if the time had passed.
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The event with this number of those that the last wait has brought.
    pub(crate) fn ready(&self, number: usize) -> Option<Ready> {
        let event = *self.ready.get(number)?;
        let (token, flags) = (event.data.u64(), event.flags);
        Some(Ready { token, readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) })
    }
}
