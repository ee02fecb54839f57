//! The children thread: a runtime of its own that never waits for any one child or client. Connections live on it like processes.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::broker::Broker;
use super::handle::{ChildrenHandle, Inlets, Vitals};
use super::seam::{ChildMessage, ChildSpec, Gone, Server};
use super::{process, socket};

/// How often time is looked at.
const TICK: Duration = Duration::from_secs(1);
/// At the end, children have five seconds and their last words one; nothing is waited for longer than this.
const LAST_WAIT: Duration = Duration::from_secs(8);

/// Starts the children thread, and on it [`ChildSpec::keep_warm`] processes of each upstream. The thread lives until
/// [`ChildrenHandle::stop`] or until the last handle is dropped.
///
/// # Errors
/// When the thread or its runtime cannot be made. A child that cannot be started is no error here: it is logged, shows in
/// [`ChildrenHandle::state`], and is tried again.
pub fn spawn(children: Vec<ChildSpec>) -> io::Result<(ChildrenHandle, JoinHandle<()>)> {
    let vitals: Vec<Arc<Vitals>> = children.iter().map(|_| Arc::default()).collect();
    let shown =
        children.iter().zip(&vitals).map(|(spec, vitals)| (spec.max_message_bytes, Arc::clone(vitals))).collect();
    let (handle, inlets) = ChildrenHandle::new(shown);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let specs = children.into_iter().zip(vitals).collect();
    let thread = std::thread::Builder::new()
        .name("children".to_owned())
        .spawn(move || LocalSet::new().block_on(&runtime, run(specs, inlets)))?;
    Ok((handle, thread))
}

async fn run(specs: Vec<(ChildSpec, Arc<Vitals>)>, mut inlets: Inlets) {
    // Every process and connection holds one count of it.
    let alive = Rc::new(());
    let brokers: Vec<Rc<RefCell<Broker>>> =
        specs.into_iter().map(|(spec, vitals)| broker(spec, vitals, &alive)).collect();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = inlets.stop.changed() => break,
            ended = inlets.ended.recv() => {
                let Some(ended) = ended else { break };
                if let Some(broker) = brokers.get(ended.upstream) {
                    broker.borrow_mut().ended(ended.serial, ended.cancel, Instant::now());
                }
            }
            command = inlets.inbox.recv() => {
                let Some(command) = command else { break };
                if let Some(broker) = brokers.get(command.upstream) {
                    broker.borrow_mut().take(command.serial, command.call, command.to, Instant::now());
                }
            }
            _ = ticks.tick() => {
                for broker in &brokers {
                    broker.borrow_mut().tick(Instant::now());
                }
            }
        }
    }
    inlets.inbox.close();
    while let Ok(command) = inlets.inbox.try_recv() {
        command.to.send(ChildMessage::Gone { reason: Gone::Stopping });
    }
    for broker in &brokers {
        broker.borrow_mut().stop(Instant::now());
    }
    // The launchers hold a count too.
    let launchers = brokers.len() + 1;
    let until = Instant::now() + LAST_WAIT;
    while Rc::strong_count(&alive) > launchers && Instant::now() < until {
        sleep(Duration::from_millis(10)).await;
    }
}

fn broker(spec: ChildSpec, vitals: Arc<Vitals>, alive: &Rc<()>) -> Rc<RefCell<Broker>> {
    Rc::new_cyclic(|weak| {
        let (weak, alive, launched) = (weak.clone(), Rc::clone(alive), spec.clone());
        let start = Box::new(move |no| match &launched.server {
            Server::Program(program) => process::launch(&launched, program, no, weak.clone(), Rc::clone(&alive)),
            Server::Socket(socket) => Ok(socket::launch(&launched, socket, no, weak.clone(), Rc::clone(&alive))),
        });
        RefCell::new(Broker::new(spec, vitals, start, Instant::now()))
    })
}
