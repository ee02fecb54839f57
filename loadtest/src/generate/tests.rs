//! Runs against servers that do right, stall, and do wrong.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::upstream::answer::{Answers, Failure};
use crate::upstream::{self, Behaviour, Framing};

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
    let (address, upstream) = (listener.local_addr()?, upstream::start(Behaviour::default())?);
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
    let target = upstream::start(Behaviour::default())?;
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
    let target = upstream::start(Behaviour::default())?;
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
    let (target, upstream) = (listener.local_addr()?, upstream::start(Behaviour::default())?);
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

#[test]
fn each_connection_names_the_session_that_it_has_opened() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let target = listener.local_addr()?;
    let upstream = upstream::start(Behaviour { sessions: true, ..Behaviour::default() })?;
    let watching = std::thread::spawn(move || -> io::Result<Vec<String>> {
        let (mut client, _) = listener.accept()?;
        let mut server = TcpStream::connect(upstream)?;
        let (mut named, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let len = client.read(&mut buffer)?;
            if len == 0 {
                return Ok(named);
            }
            let head = String::from_utf8_lossy(&buffer[..len]).into_owned();
            named
                .push(head.lines().find_map(|line| line.strip_prefix("Mcp-Session-Id: ")).unwrap_or("none").to_owned());
            server.write_all(&buffer[..len])?;
            let len = server.read(&mut buffer)?;
            client.write_all(&buffer[..len])?;
        }
    });
    run(&Load { connections: 1, warm_up: 0, calls: 3, session: true, ..load(target) })?;
    let named = watching.join().unwrap_or_else(|_| Err(io::Error::other("the watcher panicked")))?;
    // initialize, its notification, three calls.
    let session = "loadtest-00000000000000000001";
    assert_eq!(named, ["none", session, session, session, session]);
    Ok(())
}

/// A load over every door that the sample upstream has itself.
fn doors(target: SocketAddr) -> Vec<Load> {
    let mut loads = Vec::new();
    for (door, dialect) in [
        (Door::Http, Dialect::Session),
        (Door::Http, Dialect::Modern),
        (Door::Tcp, Dialect::Session),
        (Door::Tcp, Dialect::Modern),
        (Door::WebSocket, Dialect::Session),
        (Door::WebSocket, Dialect::Modern),
    ] {
        let session = door == Door::Http && dialect == Dialect::Session;
        loads.push(Load {
            dialect,
            session,
            pipeline: 8,
            connections: 3,
            stall: Duration::from_secs(5),
            warm_up: 10,
            calls: 400,
            ..Load::new(door, target)
        });
    }
    loads
}

#[test]
fn every_door_carries_every_kind_of_answer() -> io::Result<()> {
    let long = Answers { answer_bytes: 200_000, ..Answers::default() };
    for behaviour in [
        Behaviour::default(),
        Behaviour { framing: Framing::Chunked, ..Behaviour::default() },
        Behaviour { framing: Framing::Events, ..Behaviour::default() },
        Behaviour { delay_us: 300, delay_exponential: true, ..Behaviour::default() },
        Behaviour { answers: long.clone(), framing: Framing::Events, delay_us: 1, ..Behaviour::default() },
    ] {
        let target = upstream::start(behaviour.clone())?;
        for load in doors(target) {
            let mix = Rc::new(Mix::varied(291, 7).answered(&behaviour.answers));
            let outcome = run(&Load { mix, ..load.clone() })
                .map_err(|error| io::Error::other(format!("{:?} {behaviour:?}: {error}", load.door)))?;
            assert_eq!((outcome.latency.len(), outcome.errors), (400, 0));
            if behaviour.delay_us == 300 {
                assert!(outcome.latency.mean() > 300_000.0, "an answer waits 300 µs in the mean");
            }
        }
    }
    Ok(())
}

#[test]
fn calls_fail_as_foreseen_and_not_otherwise() -> io::Result<()> {
    for fail_as in [Failure::ToolError, Failure::Status500, Failure::Reset] {
        let answers = Answers { fail: 0.1, fail_as, ..Answers::default() };
        let target = upstream::start(Behaviour { answers: answers.clone(), ..Behaviour::default() })?;
        for load in doors(target) {
            let mix = Rc::new(Mix::varied(291, 300).answered(&answers));
            let fails = |number: &u64| mix.calls()[(*number % 300) as usize].failure.is_some();
            let foreseen = (10..410).filter(fails).count() as u64;
            assert!(foreseen > 10);
            let outcome = run(&Load { mix: mix.clone(), ..load.clone() })
                .map_err(|error| io::Error::other(format!("{:?} {fail_as:?}: {error}", load.door)))?;
            assert_eq!(
                (outcome.errors, outcome.latency.len()),
                (foreseen, 400 - foreseen),
                "{:?} {fail_as:?}",
                load.door
            );
            // The same calls, but nobody says that they are to fail.
            let unforeseen = Load { mix: Rc::new(Mix::varied(291, 300)), ..load };
            let first = (0..).find(fails).unwrap_or_default();
            let error = failure(&Load { pipeline: 1, connections: 1, ..unforeseen.clone() })?;
            assert!(error.contains(&format!("call {first} ")), "{error}");
            if fail_as != Failure::Reset {
                let allowed = run(&Load { errors_allowed: true, ..unforeseen })?;
                assert_eq!(allowed.errors, foreseen);
            }
        }
    }
    Ok(())
}

#[test]
fn a_failure_that_does_not_come_ends_the_run() -> io::Result<()> {
    let target = upstream::start(Behaviour::default())?;
    for fail_as in [Failure::ToolError, Failure::Status500, Failure::Reset] {
        let answers = Answers { fail: 1.0, fail_as, ..Answers::default() };
        let error = failure(&Load { mix: Rc::new(Mix::fixed(291).answered(&answers)), ..load(target) })?;
        assert!(error.contains("call 0 (id 1000000000)"), "{error}");
    }
    Ok(())
}

/// Ends TLS in front of an upstream. Returns where it listens, and the file with its certificate.
fn terminator(dir: &std::path::Path) -> io::Result<(SocketAddr, PathBuf)> {
    let signed = rcgen::generate_simple_self_signed(["upstream.test".to_owned()]).map_err(io::Error::other)?;
    let file = dir.join("certificate.pem");
    std::fs::write(&file, signed.cert.pem())?;
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).map_err(io::Error::other)?;
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(io::Error::other)?.with_no_client_auth();
    let config = config.with_single_cert(vec![signed.cert.der().clone()], key).map_err(io::Error::other)?;
    let config = std::sync::Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, upstream) = (listener.local_addr()?, upstream::start(Behaviour::default())?);
    std::thread::spawn(move || -> io::Result<()> {
        loop {
            let (client, _) = listener.accept()?;
            let tls = rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            let mut client = rustls::StreamOwned::new(tls, client);
            let mut server = TcpStream::connect(upstream)?;
            std::thread::spawn(move || -> io::Result<()> {
                let mut buffer = [0; 64 * 1024];
                loop {
                    // One call at a time, each small enough for one read.
                    let len = client.read(&mut buffer)?;
                    server.write_all(&buffer[..len])?;
                    let len = server.read(&mut buffer)?;
                    if len == 0 {
                        return Ok(());
                    }
                    client.write_all(&buffer[..len])?;
                }
            });
        }
    });
    Ok((address, file))
}

#[test]
fn calls_go_through_tls_and_only_to_whom_they_are_meant_for() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let (target, ca) = terminator(dir.path())?;
    for door in [Door::Http, Door::Tcp, Door::WebSocket] {
        let tls = |name: &str, ca: &PathBuf| Some(Tls { name: name.to_owned(), ca: ca.clone() });
        let load = Load { door, dialect: Dialect::Modern, tls: tls("upstream.test", &ca), ..load(target) };
        assert_eq!(run(&load)?.latency.len(), 500);
        let error = failure(&Load { tls: tls("other.test", &ca), ..load.clone() })?;
        assert!(error.contains("not valid for name"), "{error}");
        let stranger = dir.path().join("stranger.pem");
        let other = rcgen::generate_simple_self_signed(["upstream.test".to_owned()]).map_err(io::Error::other)?;
        std::fs::write(&stranger, other.cert.pem())?;
        let error = failure(&Load { tls: tls("upstream.test", &stranger), ..load })?;
        assert!(error.contains("certificate"), "{error}");
    }
    Ok(())
}

#[test]
fn the_measured_process_has_used_what_the_generator_says_of_itself_at_least() -> io::Result<()> {
    let target = upstream::start(Behaviour::default())?;
    let outcome = run(&Load { measured: vec![std::process::id()], ..load(target) })?;
    assert!(outcome.generator_cpu > Duration::ZERO);
    assert!(outcome.cpu >= Some(outcome.generator_cpu), "{:?} {:?}", outcome.cpu, outcome.generator_cpu);
    let mut ended = std::process::Command::new("true").spawn()?;
    ended.wait()?;
    let error = failure(&Load { measured: vec![ended.id()], ..load(target) })?;
    assert!(error.contains("No such process"), "{error}");
    let written = serde_json::to_value(&outcome)?;
    assert_eq!(written["calls"], 500);
    let counted =
        written["histogram_ns"].as_array().into_iter().flatten().filter_map(|step| step[1].as_u64()).sum::<u64>();
    assert_eq!(counted, 500);
    Ok(())
}
