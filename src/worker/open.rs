//! The connections a worker has open, for the day they must end.
//!
//! When the process drains, a connection that is between two requests is ended at once (its pending read completes with end-of-file), one that
//! is inside a request ends after it, and a stream that has no end of its own is told through [`OpenConnection::draining`].
//!
//! A single connection is ended in the same way when that is asked for from outside ([`OpenConnections::close`]); what it is doing then
//! gets [`bounds::CLOSE_MS`].

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::bounds;
use crate::state::connections::ConnectionId;
use crate::sys::socket::{Half, shutdown};

struct Slot {
    fd: RawFd,
    idle: bool,
    waker: Option<Waker>,
    in_use: bool,
    /// In the table of connections; `None` for a listener.
    id: Option<ConnectionId>,
    /// When it is cut, on the worker's clock, because it was asked to close.
    cut_at_ms: Option<u64>,
}

#[derive(Default)]
struct Table {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    draining: Cell<bool>,
    /// Connections that were asked to close and are still open.
    closing: Cell<usize>,
}

/// The table. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct OpenConnections {
    table: Rc<Table>,
}

/// One connection's place in the table, given back on drop.
pub(crate) struct OpenConnection {
    table: Rc<Table>,
    slot: usize,
}

impl OpenConnections {
    /// Enters a socket that is no connection of the table; it must stay open while the entry lives.
    pub(crate) fn enter(&self, fd: RawFd) -> OpenConnection {
        self.enter_slot(fd, None)
    }

    /// Enters a connection; its socket must stay open while the entry lives.
    pub(crate) fn enter_connection(&self, fd: RawFd, id: ConnectionId) -> OpenConnection {
        self.enter_slot(fd, Some(id))
    }

    fn enter_slot(&self, fd: RawFd, id: Option<ConnectionId>) -> OpenConnection {
        let slot = Slot { fd, idle: false, waker: None, in_use: true, id, cut_at_ms: None };
        let mut slots = self.table.slots.borrow_mut();
        let at = match self.table.free.borrow_mut().pop() {
            Some(at) => {
                if let Some(place) = slots.get_mut(at) {
                    *place = slot;
                }
                at
            }
            None => {
                slots.push(slot);
                slots.len() - 1
            }
        };
        OpenConnection { table: self.table.clone(), slot: at }
    }

    /// Cuts all that is open.
    pub(crate) fn cut(&self) {
        self.drain();
        for slot in self.table.slots.borrow().iter().filter(|slot| slot.in_use) {
            shutdown(slot.fd, Half::Both);
        }
    }

    /// Ends those that are asked to close: at once where nothing is going on, otherwise after what is going on, or when its time is up.
    pub(crate) fn close(&self, now_ms: u64, is_asked: impl Fn(ConnectionId) -> bool) {
        let mut wake = Vec::new();
        for slot in self.table.slots.borrow_mut().iter_mut().filter(|slot| slot.in_use && slot.cut_at_ms.is_none()) {
            if !slot.id.is_some_and(&is_asked) {
                continue;
            }
            slot.cut_at_ms = Some(now_ms + bounds::CLOSE_MS);
            self.table.closing.set(self.table.closing.get() + 1);
            if slot.idle {
                shutdown(slot.fd, Half::Read);
            }
            wake.extend(slot.waker.take());
        }
        for waker in wake {
            waker.wake();
        }
    }

    /// Cuts those whose time to close is over. One load while there are none.
    pub(crate) fn cut_overdue(&self, now_ms: u64) {
        if self.table.closing.get() == 0 {
            return;
        }
        let slots = self.table.slots.borrow();
        for slot in slots.iter().filter(|slot| slot.in_use && slot.cut_at_ms.is_some_and(|at| at <= now_ms)) {
            shutdown(slot.fd, Half::Both);
        }
    }

    /// Ends the idle ones and wakes the streams.
    pub(crate) fn drain(&self) {
        self.table.draining.set(true);
        let mut wake = Vec::new();
        for slot in self.table.slots.borrow_mut().iter_mut().filter(|slot| slot.in_use) {
            if slot.idle {
                shutdown(slot.fd, Half::Read);
            }
            wake.extend(slot.waker.take());
        }
        for waker in wake {
            waker.wake();
        }
    }
}

impl OpenConnection {
    /// Whether the connection waits for a request of which nothing has come.
    pub(crate) fn set_idle(&self, idle: bool) {
        if let Some(slot) = self.table.slots.borrow_mut().get_mut(self.slot) {
            slot.idle = idle;
            if idle && (self.table.draining.get() || slot.cut_at_ms.is_some()) {
                shutdown(slot.fd, Half::Read);
            }
        }
    }

    /// Ready when the process drains, or this connection was asked to close. Safe to drop.
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| self.poll_draining(cx.waker()))
    }

    /// [`OpenConnection::draining`], polled.
    pub(crate) fn poll_draining(&self, waker: &Waker) -> Poll<()> {
        if self.table.draining.get() {
            return Poll::Ready(());
        }
        if let Some(slot) = self.table.slots.borrow_mut().get_mut(self.slot) {
            if slot.cut_at_ms.is_some() {
                return Poll::Ready(());
            }
            slot.waker = Some(waker.clone());
        }
        Poll::Pending
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if let Some(slot) = self.table.slots.borrow_mut().get_mut(self.slot) {
            slot.in_use = false;
            slot.waker = None;
            if slot.cut_at_ms.take().is_some() {
                self.table.closing.set(self.table.closing.get() - 1);
            }
        }
        self.table.free.borrow_mut().push(self.slot);
    }
}
