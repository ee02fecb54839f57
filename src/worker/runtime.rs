//! Starting a worker: the thread, its core, its driver, its listener.
//!
//! io_uring is probed once at start, because it is often not to be had: container runtimes block it by default, kernels have it switched off
//! by sysctl. Then every worker runs on epoll, and one warning says so.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use monoio::{Driver, IoUringDriver, LegacyDriver, RuntimeBuilder};
use socket2::{Domain, Protocol, Socket, Type};

use super::Worker;
use crate::bounds;
use crate::gateway::Shared;
use crate::settings::IoDriver;
use crate::state::lifecycle::{Door, Phase};

/// The kernel interface that workers wait on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring.
    IoUring,
    /// epoll, where io_uring is blocked.
    Epoll,
}

/// Entries of a worker's submission queue: operations that can be handed to the kernel in one call.
const RING_ENTRIES: u32 = 4096;

/// Which driver the workers will use: asks the kernel for a ring with the very options that workers use.
#[must_use]
pub(crate) fn probe_driver(wanted: IoDriver) -> DriverKind {
    if wanted == IoDriver::Epoll {
        return DriverKind::Epoll;
    }
    let options = uring_options();
    match options.build(RING_ENTRIES) {
        Ok(_) => DriverKind::IoUring,
        Err(error) => {
            tracing::warn!(
                %error,
                "io_uring is not available, falling back to epoll: calls cost more CPU. Containers: allow the io_uring_* system calls \
                 in the seccomp profile. Hosts: sysctl kernel.io_uring_disabled=0, Linux 6.0 or later"
            );
            DriverKind::Epoll
        }
    }
}

/// One thread submits, and completions are handled when it enters the kernel anyway. No DEFER_TASKRUN: it starves I/O while
/// tasks are runnable (ARCHITECTURE.md).
fn uring_options() -> io_uring::Builder {
    let mut options = io_uring::IoUring::builder();
    options.setup_single_issuer().setup_coop_taskrun();
    options
}

/// A listening socket that shares its port with those of the other workers.
///
/// # Errors
/// What the kernel answered, usually that the port is taken.
pub(crate) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(bounds::ACCEPT_BACKLOG)?;
    Ok(socket.into())
}

/// A worker's own listening sockets.
pub(crate) struct Listeners {
    /// HTTP and WebSocket.
    pub(crate) bridge: std::net::TcpListener,
    /// Lines.
    pub(crate) tcp: std::net::TcpListener,
    /// Messages that other workers were posted for this one's old SSE clients.
    pub(crate) inbox: crate::door::sse::Inbox,
}

/// Starts a worker on `core` that serves its doors.
///
/// # Errors
/// When the thread cannot be made. A worker whose runtime cannot be built ends with that error.
pub(crate) fn spawn(
    index: usize,
    core: Option<usize>,
    driver: DriverKind,
    shared: Arc<Shared>,
    listeners: Listeners,
) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        if let Some(core) = core
            && let Err(error) = crate::sys::thread::pin_to(core)
        {
            tracing::warn!(worker = index, core, %error, "worker is not pinned to its core");
        }
        let lifecycle = shared.lifecycle.clone();
        let serve = std::panic::AssertUnwindSafe(|| serve(index, driver, shared, listeners));
        let ended = std::panic::catch_unwind(serve);
        if !matches!(ended, Ok(Ok(()))) {
            // Half a gateway would refuse half of its clients for ever: the process ends, and says why.
            tracing::error!(worker = index, "worker failed; the gateway stops");
            lifecycle.advance(Phase::Stopped);
        }
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn serve(index: usize, driver: DriverKind, shared: Arc<Shared>, listeners: Listeners) -> io::Result<()> {
    match driver {
        DriverKind::IoUring => {
            let runtime =
                RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_ENTRIES).uring_builder(uring_options());
            run(runtime.enable_timer().build()?, index, shared, listeners)
        }
        DriverKind::Epoll => {
            let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
            run(runtime, index, shared, listeners)
        }
    }
}

fn run<D: Driver>(
    mut runtime: monoio::Runtime<monoio::time::TimeDriver<D>>,
    index: usize,
    shared: Arc<Shared>,
    listeners: Listeners,
) -> io::Result<()> {
    runtime.block_on(async move {
        let worker = Worker::new(index, shared);
        let pulse = monoio::spawn(Rc::clone(&worker).pulse());
        let bridge = monoio::spawn(crate::door::accept(Rc::clone(&worker), Door::Http, listeners.bridge)?);
        let tcp = monoio::spawn(crate::door::accept(Rc::clone(&worker), Door::Tcp, listeners.tcp)?);
        let inbox = monoio::spawn(crate::door::sse::deliver(Rc::clone(&worker), listeners.inbox));
        pulse.await;
        drop((bridge, tcp, inbox));
        Ok(())
    })
}
