//! The audit trail as an auditor without our code would read it: every line's place, its link to the one before, and its MAC.
//!
//! Nothing of the gateway is used here: HMAC-SHA-256 from its crate, the key from its file, and the words of the contract. A line is
//! `[SECURITY] {…,"seq":N,…,"prev":"HEX","mac":"HEX"}`; `mac` is over the bytes from `{` up to the comma before `"mac"`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

use super::call;
use super::ledger::{Ended, Ledger};

const PREFIX: &str = "[SECURITY] ";

/// How a line ends behind what its MAC is over: `,"mac":"`, 64 digits, `"}`.
const TAIL: usize = 8 + 64 + 2;

#[derive(Deserialize)]
struct Line<'a> {
    seq: u64,
    event: &'a str,
    prev: &'a str,
    mac: &'a str,
    #[serde(rename = "requestId")]
    request_id: Option<String>,
    outcome: Option<&'a str>,
    details: Option<String>,
}

/// What reading a trail came to.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    pub(crate) lines: u64,
    pub(crate) calls: u64,
    /// Tokens that were issued or revoked: the event and the token's name.
    pub(crate) tokens: Vec<(Change, String)>,
    /// What is wrong with it, in the order in which it was found; bounded.
    pub(crate) faults: Vec<String>,
}

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    Issued,
    Revoked,
}

/// Reads lines and checks each against the one before.
pub(crate) struct Auditor {
    keyed: Hmac<Sha256>,
    seq: u64,
    mac: String,
    found: Trail,
}

/// Faults that are told; a trail that is cut in the middle breaks in one place, a wrong key in every line.
const TOLD: usize = 20;

impl Auditor {
    /// Under the key of a file, from the very first line.
    pub(crate) fn new(key: &[u8]) -> io::Result<Self> {
        let keyed = Hmac::<Sha256>::new_from_slice(key).map_err(io::Error::other)?;
        Ok(Self { keyed, seq: 0, mac: "0".repeat(64), found: Trail::default() })
    }

    fn fault(&mut self, what: String) {
        if self.found.faults.len() < TOLD {
            self.found.faults.push(what);
        }
    }

    /// Reads one line, without its end. Tells the ledger of calls.
    pub(crate) fn line(&mut self, line: &str, ledger: &Ledger) {
        self.found.lines += 1;
        let place = self.found.lines;
        let Some(json) = line.strip_prefix(PREFIX) else {
            return self.fault(format!("line {place} is none of the trail's"));
        };
        let parsed: Line<'_> = match serde_json::from_str(json) {
            Ok(parsed) => parsed,
            Err(error) => return self.fault(format!("line {place} is not whole: {error}")),
        };
        if parsed.seq != self.seq + 1 {
            self.fault(format!("line {place} has number {}, behind {}", parsed.seq, self.seq));
        }
        if parsed.prev != self.mac {
            self.fault(format!("line {place} does not follow the line before it"));
        }
        let body = json.len().checked_sub(TAIL).and_then(|len| json.get(..len)).unwrap_or_default();
        let mut keyed = self.keyed.clone();
        keyed.update(body.as_bytes());
        let hex: String = keyed.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        if hex != parsed.mac {
            self.fault(format!("line {place} has a wrong mac"));
        }
        self.seq = parsed.seq;
        parsed.mac.clone_into(&mut self.mac);
        match parsed.event {
            "tool_call" => {
                self.found.calls += 1;
                self.call(place, parsed.request_id.as_deref(), parsed.outcome.unwrap_or_default(), ledger);
            }
            "token_issued" => self.token(Change::Issued, parsed.details),
            "token_revoked" => self.token(Change::Revoked, parsed.details),
            _ => {}
        }
    }

    /// Details are `token ID, …`; of sessions there are lines as well.
    fn token(&mut self, change: Change, details: Option<String>) {
        let details = details.unwrap_or_default();
        if let Some((id, _)) = details.strip_prefix("token ").and_then(|rest| rest.split_once(',')) {
            self.found.tokens.push((change, id.to_owned()));
        }
    }

    fn call(&mut self, place: u64, id: Option<&str>, outcome: &str, ledger: &Ledger) {
        let known = id.and_then(call::number_of).filter(|number| ledger.flags(*number).has(Ended::BEGUN));
        let Some(number) = known else {
            return self.fault(format!("line {place} records a call that nobody made: {id:?}"));
        };
        if !ledger.recorded(number) {
            self.fault(format!("line {place} is a second record of call {number}"));
        }
        let flags = ledger.flags(number);
        // What its client has, the trail must not deny, nor claim what its client has not. Who has left knows nothing.
        if flags.has(Ended::RIGHT) && outcome != "ok" {
            self.fault(format!("line {place}: call {number} was answered, and is recorded as {outcome}"));
        }
        if flags.has(Ended::NOT_MADE) && matches!(outcome, "ok" | "tool_error") {
            self.fault(format!("line {place}: call {number} was not made, and is recorded as {outcome}"));
        }
    }

    pub(crate) fn end(self) -> Trail {
        self.found
    }

    pub(crate) fn found(&mut self) -> &mut Trail {
        &mut self.found
    }
}

/// Reads a whole trail.
pub(crate) fn read(dir: &Path, key: &[u8], ledger: &Ledger) -> io::Result<Trail> {
    let mut auditor = Auditor::new(key)?;
    for path in files(dir)? {
        for line in BufReader::with_capacity(1 << 20, File::open(path)?).lines() {
            auditor.line(&line?, ledger);
        }
    }
    Ok(auditor.end())
}

/// A trail that is read on as it grows, each line once.
pub(crate) struct Growing {
    auditor: Auditor,
    dir: PathBuf,
    read: HashMap<PathBuf, u64>,
}

impl Growing {
    pub(crate) fn new(dir: &Path, key: &[u8]) -> io::Result<Self> {
        Ok(Self { auditor: Auditor::new(key)?, dir: dir.to_owned(), read: HashMap::new() })
    }

    /// Reads the whole lines that have come since.
    pub(crate) fn read_on(&mut self, ledger: &Ledger) -> io::Result<&mut Trail> {
        for path in files(&self.dir)? {
            let at = self.read.entry(path.clone()).or_default();
            let mut file = File::open(&path)?;
            if file.metadata()?.len() < *at {
                self.auditor.fault(format!("{} was {at} bytes long and is shorter now", path.display()));
            }
            file.seek(SeekFrom::Start(*at))?;
            let mut new = Vec::new();
            file.read_to_end(&mut new)?;
            let whole = memchr::memrchr(b'\n', &new).map_or(0, |end| end + 1);
            *at += whole as u64;
            let text = std::str::from_utf8(new.get(..whole).unwrap_or_default()).map_err(io::Error::other)?;
            text.lines().for_each(|line| self.auditor.line(line, ledger));
        }
        Ok(self.auditor.found())
    }
}

/// The files of a trail, in the order of their days.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("security-") && name.ends_with(".log") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Calls that were made and have no record. A call that nobody took up (its connection broke on the way) need not have one.
pub(crate) fn unrecorded(ledger: &Ledger) -> Vec<u64> {
    let missing = |number: &u64| {
        let flags = ledger.flags(*number);
        flags.has(Ended::SEEN) && !flags.has(Ended::RECORDED)
    };
    (1..=ledger.last()).filter(missing).collect()
}

/// Follows a trail as it grows and notes how soon the lines of answered calls are there.
pub(crate) struct Follower {
    dir: PathBuf,
    read: HashMap<PathBuf, u64>,
    /// Lines that came before their answers.
    early: HashMap<u64, Instant>,
    pub(crate) samples: u64,
    pub(crate) longest: Duration,
    /// Samples that took longer than the limit.
    pub(crate) late: u64,
    limit: Duration,
    /// The longest time between two looks.
    pub(crate) longest_pause: Duration,
}

impl Follower {
    pub(crate) fn new(dir: &Path, limit: Duration) -> Self {
        let (read, early) = (HashMap::new(), HashMap::new());
        Self {
            dir: dir.to_owned(),
            read,
            early,
            samples: 0,
            longest: Duration::ZERO,
            late: 0,
            limit,
            longest_pause: Duration::ZERO,
        }
    }

    /// Reads what has come since, and compares with the answers that the ledger has seen.
    pub(crate) fn look(&mut self, ledger: &Ledger) -> io::Result<()> {
        // What is not there now was not there before now: the time that reading takes counts for the gateway.
        let before = Instant::now();
        let mut there = Vec::new();
        for path in files(&self.dir)? {
            let at = self.read.entry(path.clone()).or_default();
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(*at))?;
            let mut new = Vec::new();
            file.read_to_end(&mut new)?;
            let whole = memchr::memrchr(b'\n', &new).map_or(0, |end| end + 1);
            *at += whole as u64;
            let text = std::str::from_utf8(new.get(..whole).unwrap_or_default()).map_err(io::Error::other)?;
            there.extend(text.lines().filter_map(call_of));
        }
        let mut answered = ledger.answered_at.borrow_mut();
        for number in there {
            self.early.insert(number, before);
        }
        let mut waiting = HashMap::new();
        for (number, at) in answered.drain() {
            match self.early.remove(&number) {
                Some(seen) => self.sample(seen.saturating_duration_since(at)),
                // Counted once it is there; `late` by then says by how much.
                None => _ = waiting.insert(number, at),
            }
        }
        *answered = waiting;
        self.early.retain(|_, seen| before.duration_since(*seen) < Duration::from_secs(30));
        Ok(())
    }

    fn sample(&mut self, lag: Duration) {
        self.samples += 1;
        self.longest = self.longest.max(lag);
        if lag > self.limit {
            self.late += 1;
        }
    }
}

/// The number of the call that a line records.
fn call_of(line: &str) -> Option<u64> {
    let rest = line.split_once("\"event\":\"tool_call\"")?.1.split_once("\"requestId\":\"")?.1;
    let id = rest.split_once("\",\"")?.0;
    call::number_of(&id.replace("\\\"", "\""))
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::faults::fault::{Fault, Way};
    use crate::faults::verdict::{Allowed, Verdict};

    const KEY: [u8; 32] = [9; 32];

    /// A line as the contract has it, made without the code that reads it.
    fn made(seq: u64, prev: &str, fields: &str) -> (String, String) {
        let body = format!("{{\"timestamp\":\"2026-11-22T07:06:38.123Z\",\"seq\":{seq},{fields},\"prev\":\"{prev}\"");
        let mut keyed = Hmac::<Sha256>::new_from_slice(&KEY).expect("any length is right");
        keyed.update(body.as_bytes());
        let mac: String = keyed.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        (format!("{PREFIX}{body},\"mac\":\"{mac}\"}}"), mac)
    }

    fn trail(fields: &[&str]) -> Vec<String> {
        let mut mac = "0".repeat(64);
        let mut lines = Vec::new();
        for (at, fields) in fields.iter().enumerate() {
            let (line, next) = made(at as u64 + 1, &mac, fields);
            mac = next;
            lines.push(line);
        }
        lines
    }

    fn faults(lines: &[String], ledger: &Ledger) -> Vec<String> {
        let mut auditor = Auditor::new(&KEY).expect("a key");
        lines.iter().for_each(|line| auditor.line(line, ledger));
        auditor.end().faults
    }

    fn answered(verdict: Verdict) -> (Ledger, u64) {
        let ledger = Ledger::default();
        let number = ledger.begin(Way::Linked, 0, Fault::None, (0, 0), Allowed::of(&Verdict::ALL)).number;
        if !verdict.says_not_made() {
            ledger.seen(number, 0);
        }
        ledger.end(number, verdict, b"");
        (ledger, number)
    }

    #[test]
    fn a_whole_trail_has_no_fault_and_each_damage_is_one() {
        let start = "\"event\":\"server_start\",\"severity\":\"INFO\"";
        let call = "\"event\":\"tool_call\",\"severity\":\"INFO\",\"requestId\":\"1\",\"outcome\":\"ok\"";
        let whole = trail(&[start, call, start]);
        assert_eq!(faults(&whole, &answered(Verdict::Right).0), Vec::<String>::new());
        type Damage = fn(&mut Vec<String>);
        let damages: [(&str, Damage); 6] = [
            ("a line is gone", |lines| _ = lines.remove(1)),
            ("the first line is gone", |lines| _ = lines.remove(0)),
            ("two are swapped", |lines| lines.swap(1, 2)),
            ("one is doubled", |lines| lines.insert(1, lines.get(1).cloned().unwrap_or_default())),
            ("one is torn", |lines| lines.iter_mut().for_each(|line| line.truncate(150))),
            ("one is changed", |lines| lines.iter_mut().for_each(|line| *line = line.replace("\"ok\"", "\"no\""))),
        ];
        for (what, damage) in damages {
            let mut lines = whole.clone();
            damage(&mut lines);
            assert!(!faults(&lines, &answered(Verdict::Right).0).is_empty(), "{what}");
        }
        let mut auditor = Auditor::new(&[8; 32]).expect("a key");
        whole.iter().for_each(|line| auditor.line(line, &answered(Verdict::Right).0));
        assert_eq!(auditor.end().faults.len(), 3, "each line has a wrong mac under another key");
    }

    #[test]
    fn a_trail_that_is_read_as_it_grows_is_read_once_and_must_not_shrink() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let token = "\"event\":\"token_revoked\",\"severity\":\"LOW\",\"details\":\"token 01ab, from ip:x\"";
        let lines = trail(&["\"event\":\"server_start\",\"severity\":\"INFO\"", token, token]);
        let whole = lines.join("\n") + "\n";
        let path = dir.path().join("security-2026-11-22.log");
        let (ledger, mut growing) = (Ledger::default(), Growing::new(dir.path(), &KEY)?);
        // A line without its end is being written.
        for len in [0, 10, whole.len() - 1, whole.len()] {
            std::fs::write(&path, whole.get(..len).unwrap_or_default())?;
            let trail = growing.read_on(&ledger)?;
            let ends = whole.bytes().take(len).filter(|byte| *byte == b'\n').count() as u64;
            assert_eq!((trail.lines, trail.faults.as_slice()), (ends, &[][..]), "{len}");
        }
        let revoked = (Change::Revoked, "01ab".to_owned());
        assert_eq!(growing.read_on(&ledger)?.tokens, [revoked.clone(), revoked]);
        std::fs::write(&path, whole.get(..whole.len() - 1).unwrap_or_default())?;
        assert_eq!(growing.read_on(&ledger)?.faults.len(), 1);
        Ok(())
    }

    #[test]
    fn a_record_must_fit_what_the_client_was_told() {
        let line = |id: &str, outcome: &str| {
            trail(&[&format!(
                "\"event\":\"tool_call\",\"severity\":\"INFO\",\"requestId\":\"{id}\",\"outcome\":\"{outcome}\""
            )])
        };
        let of = |verdict, id, outcome| faults(&line(id, outcome), &answered(verdict).0).len();
        assert_eq!(of(Verdict::Right, "1", "ok"), 0);
        assert_eq!(of(Verdict::Right, "1", "cancelled"), 1);
        assert_eq!(of(Verdict::Busy, "1", "upstream_error"), 0);
        assert_eq!(of(Verdict::Busy, "1", "ok"), 1);
        assert_eq!(of(Verdict::Right, "2", "ok"), 1, "nobody made it");
        assert_eq!(of(Verdict::Right, "\\\"q3\\\"", "ok"), 1, "nobody made it");
    }

    #[test]
    fn a_call_without_a_record_is_missed() {
        let (ledger, number) = answered(Verdict::Right);
        assert_eq!(unrecorded(&ledger), [number]);
        ledger.recorded(number);
        assert!(unrecorded(&ledger).is_empty());
        assert!(unrecorded(&answered(Verdict::Busy).0).is_empty(), "what never went out needs none");
    }

    #[test]
    fn the_follower_finds_a_call_whatever_its_id() {
        for number in [1, 2, 3, 300] {
            let id = call::id_of(number).replace('"', "\\\"");
            let fields =
                format!("\"event\":\"tool_call\",\"severity\":\"INFO\",\"requestId\":\"{id}\",\"outcome\":\"ok\"");
            let lines = trail(&[&fields]);
            assert_eq!(lines.first().and_then(|line| call_of(line)), Some(number));
        }
        assert_eq!(call_of("[SECURITY] {\"event\":\"auth_success\",\"requestId\":\"1\",\"x\""), None);
    }
}
