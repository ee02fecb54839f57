//! The connections a worker has open, for the day they must end.
//!
//! When the process drains, a connection that is between two requests is ended at once (its pending read completes with end-of-file), one that
//! is inside a request ends after it, and a stream that has no end of its own is told through [`OpenConnection::draining`].

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::sys::socket::{Half, shutdown};

struct Slot {
    fd: RawFd,
    idle: bool,
    waker: Option<Waker>,
    in_use: bool,
}

#[derive(Default)]
struct Table {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    draining: Cell<bool>,
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
    /// Enters a connection; its socket must stay open while the entry lives.
    pub(crate) fn enter(&self, fd: RawFd) -> OpenConnection {
        let slot = Slot { fd, idle: false, waker: None, in_use: true };
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
            if idle && self.table.draining.get() {
                shutdown(slot.fd, Half::Read);
            }
        }
    }

    /// Ready when the process drains. Safe to drop.
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| {
            if self.table.draining.get() {
                return Poll::Ready(());
            }
            if let Some(slot) = self.table.slots.borrow_mut().get_mut(self.slot) {
                slot.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if let Some(slot) = self.table.slots.borrow_mut().get_mut(self.slot) {
            slot.in_use = false;
            slot.waker = None;
        }
        self.table.free.borrow_mut().push(self.slot);
    }
}
