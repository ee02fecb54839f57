//! Runs against servers that do right, stall, and do wrong.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::upstream;

fn load(target: SocketAddr) -> Load {
    Load { connections: 4, warm_up: 10, calls: 500, stall: Duration::from_secs(5), ..Load::new(Door::Http, target) }
}

/// What ends a run that must not end well.
fn failure(load: &Load) -> io::Result<String> {
    match run(load) {
        Ok(_) => Err(io::Error::other("the run ended well")),
        Err(error) => Ok(error.to_string()),
    }
}

/// A proxy on one connection at a time: `tamper` is asked what becomes of what the upstream answers.
fn proxy(mut tamper: impl FnMut(&mut Vec<u8>) + Send + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, upstream) = (listener.local_addr()?, upstream::start()?);
    std::thread::spawn(move || -> io::Result<()> {
        let (mut client, _) = listener.accept()?;
        let mut server = TcpStream::connect(upstream)?;
        let mut buffer = [0; 64 * 1024];
        loop {
            // Requests and answers of these tests arrive with one read each.
            let len = client.read(&mut buffer)?;
            if len == 0 {
                return Ok(());
            }
            server.write_all(&buffer[..len])?;
            let len = server.read(&mut buffer)?;
            let mut answer = buffer[..len].to_vec();
            tamper(&mut answer);
            if answer.is_empty() {
                return Ok(());
            }
            client.write_all(&answer)?;
        }
    });
    Ok(address)
}

#[test]
fn every_call_is_made_and_recorded_once() -> io::Result<()> {
    let target = upstream::start()?;
    for (connections, pipeline, len) in [(1, 1, 291), (7, 1, 291), (3, 16, 291), (2, 3, 300_000)] {
        let load = Load { connections, pipeline, mix: Rc::new(Mix::fixed(len)), ..load(target) };
        let outcome = run(&load)?;
        assert_eq!((outcome.calls, outcome.latency.len()), (500, 500));
        assert!(outcome.took > Duration::ZERO && outcome.latency.min() > 0);
    }
    Ok(())
}

#[test]
fn an_open_schedule_takes_the_time_that_it_says() -> io::Result<()> {
    let target = upstream::start()?;
    for arrivals in [Arrivals::Constant, Arrivals::Poisson { seed: 1 }] {
        let schedule = Schedule::Open { calls_per_s: 2_000.0, arrivals };
        let outcome = run(&Load { schedule, ..load(target) })?;
        assert_eq!(outcome.latency.len(), 500);
        // Calls are never begun before they are due: 500 of them at 2,000 a second.
        assert!(outcome.took > Duration::from_millis(200), "{:?}", outcome.took);
    }
    Ok(())
}

/// A target that answers nothing for a while in the middle of a run: one call sees it in a closed loop; of an open schedule, all do that were due
/// meanwhile, for as long as the rest of it lasted.
#[test]
fn a_stall_is_felt_by_all_calls_that_were_due_meanwhile() -> io::Result<()> {
    const STALL: Duration = Duration::from_millis(400);
    let stalling = || {
        let mut answered = 0;
        proxy(move |_| {
            answered += 1;
            if answered == 100 {
                std::thread::park_timeout(STALL);
            }
        })
    };
    let long = |outcome: &Outcome, above: Duration| {
        let above = u64::try_from(above.as_nanos()).unwrap_or(u64::MAX);
        outcome.latency.len() - outcome.latency.count_between(0, above)
    };
    let one = |target| Load { connections: 1, ..load(target) };
    let closed = run(&one(stalling()?))?;
    assert!(long(&closed, STALL * 9 / 10) <= 1, "a closed loop asks nothing meanwhile");
    let schedule = Schedule::Open { calls_per_s: 1_000.0, arrivals: Arrivals::Constant };
    let open = run(&Load { schedule, ..one(stalling()?) })?;
    // 1,000 a second are due: about 200 in the first half of the stall, and each waits for the second half at least.
    assert!(long(&open, STALL * 9 / 10) >= 35, "{}", long(&open, STALL * 9 / 10));
    assert!(long(&open, STALL / 2) >= 190, "{}", long(&open, STALL / 2));
    assert!(open.latency_us(0.99) >= STALL.as_micros() as f64 * 0.9, "{}", open.latency_us(0.99));
    assert!(open.waited >= 300, "{}", open.waited);
    Ok(())
}

/// A target that never answers ends the run, and so does one that cannot keep up.
#[test]
fn a_target_that_says_nothing_ends_the_run() -> io::Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let target = silent.local_addr()?;
    for schedule in [Schedule::Closed, Schedule::Open { calls_per_s: 100.0, arrivals: Arrivals::Constant }] {
        let error = failure(&Load { stall: Duration::from_millis(200), schedule, ..load(target) })?;
        assert!(
            error.contains("call 0 (id 1000000000)") && error.contains("stalled: ") && error.contains(" 0 answered"),
            "{error}"
        );
    }
    Ok(())
}

#[test]
fn a_wrong_answer_ends_the_run_and_names_its_call() -> io::Result<()> {
    type Tamper = fn(&mut Vec<u8>);
    fn replace(answer: &mut Vec<u8>, from: &str, to: &str) {
        let text = String::from_utf8_lossy(answer).into_owned();
        assert!(text.contains(from), "{text}");
        *answer = text.replace(from, to).into_bytes();
    }
    let cases: [(&str, Tamper, &str); 9] = [
        (
            "a bit",
            |answer| {
                let at = answer.len() - 30;
                answer[at] ^= 1
            },
            "a wrong answer",
        ),
        ("the id", |answer| replace(answer, "1000000042", "1000000041"), "a wrong answer"),
        (
            "a digit more",
            |answer| {
                replace(answer, "1000000042", "10000000420");
                replace(answer, "Length: 139", "Length: 140")
            },
            "a wrong answer",
        ),
        (
            "the last byte",
            |answer| {
                answer.pop();
            },
            "received in part",
        ),
        ("all of it", Vec::clear, "closed by the other side"),
        ("the status", |answer| replace(answer, "200 OK", "500 Oh"), "status 500"),
        ("the protocol", |answer| replace(answer, "HTTP/1.1", "SMTP/1.1"), "no HTTP response"),
        (
            "twice",
            |answer| {
                let copy = answer.clone();
                answer.extend(copy)
            },
            "a wrong answer",
        ),
        ("an error", |answer| replace(answer, "\"result\"", "\"errors\""), "a wrong answer"),
    ];
    for (name, tamper, fault) in cases {
        let mut answered = 0;
        let target = proxy(move |answer| {
            if answered == 42 {
                tamper(answer);
            }
            answered += 1;
        })?;
        let stall = Duration::from_millis(300);
        let error = failure(&Load { connections: 1, stall, ..load(target) })?;
        let call = if name == "twice" { 43 } else { 42 };
        assert!(error.contains(&format!("call {call} (id 10000000{call})")), "{name}: {error}");
        assert!(error.contains(fault), "{name}: {error}");
    }
    Ok(())
}

#[test]
fn a_byte_that_was_changed_on_the_way_to_the_upstream_is_noticed() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (target, upstream) = (listener.local_addr()?, upstream::start()?);
    std::thread::spawn(move || -> io::Result<()> {
        let (mut client, _) = listener.accept()?;
        let mut server = TcpStream::connect(upstream)?;
        let mut buffer = [0; 4096];
        let len = client.read(&mut buffer)?;
        let at = buffer.windows(6).position(|six| six == b"Friday").unwrap_or_default();
        buffer[at] = b'f';
        server.write_all(&buffer[..len])?;
        io::copy(&mut server, &mut client).map(|_| ())
    });
    let error = failure(&Load { connections: 1, ..load(target) })?;
    assert!(error.contains("call 0 (id 1000000000)") && error.contains("a wrong answer"), "{error}");
    Ok(())
}
