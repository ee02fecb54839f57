//! The thread that reads: one connection that cannot write, one look after the other, each of bounded length.

use std::sync::mpsc::Receiver;

use rusqlite::Connection;

/// A look, which answers by itself.
pub(super) type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

/// Reads until the last [`Store`](super::Store) is dropped.
pub(super) fn run(conn: &Connection, jobs: &Receiver<ReadJob>) {
    while let Ok(job) = jobs.recv() {
        job(conn);
    }
}
