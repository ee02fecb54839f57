//! How long ringwall takes from its start to the first answered call, with every guard on.

use std::io;
use std::time::{Duration, Instant};

use super::super::cpu;
use super::super::peer::{Group, Place, free_ports, right_call, ringwall_alone};

/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a call is tried.
const STEP: Duration = Duration::from_micros(200);

/// Milliseconds of so many starts, each of a new process that finds no files of an earlier one. It may use all of `cores`, as when a user starts it;
/// the others are stopped.
pub(super) fn measure(place: &Place, starts: usize, cores: &[usize]) -> io::Result<Vec<f64>> {
    let own = cpu::usable()?;
    cpu::pin_self(cores)?;
    let measured = (0..starts).map(|start| one(place, start)).collect();
    cpu::pin_self(&own)?;
    measured
}

fn one(place: &Place, start: usize) -> io::Result<f64> {
    let [port] = free_ports()?;
    let own = Place {
        ringwall: place.ringwall.clone(),
        installed: place.installed.clone(),
        dir: place.dir.join(format!("start-{start}")),
        ..*place
    };
    let (program, home, target) = ringwall_alone(&own, port)?;
    let began = Instant::now();
    let group = Group::start("ringwall", &program, &home, None)?;
    loop {
        match right_call(&target) {
            Ok(()) => return Ok(began.elapsed().as_secs_f64() * 1000.0),
            Err(error) if began.elapsed() > PATIENCE => return Err(group.explain(&error)),
            Err(_) => std::thread::park_timeout(STEP),
        }
    }
}
