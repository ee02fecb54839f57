#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the threads and processes of a test are its own")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;

const STEPS: &[&str] = &[
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT",
    "CREATE TABLE sums (id INTEGER PRIMARY KEY CHECK (id = 1), sum INTEGER NOT NULL) STRICT; INSERT INTO sums VALUES (1, 0)",
];

struct Rig {
    dir: tempfile::TempDir,
    lifecycle: Arc<Lifecycle>,
    store: Store,
    threads: StoreThreads,
}

fn lifecycle() -> Arc<Lifecycle> {
    Arc::new(Lifecycle::new(1, Vec::new()))
}

impl Rig {
    fn start() -> Self {
        let dir = folder();
        let lifecycle = lifecycle();
        let (store, threads, _) = Store::start(open::open(dir.path(), STEPS).unwrap(), Arc::clone(&lifecycle)).unwrap();
        Self { dir, lifecycle, store, threads }
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join(open::FILE)
    }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// A folder for the owner alone, whatever the umask is.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    dir
}

/// The error of a database that must not open.
fn refused(dir: &Path, steps: &[&str]) -> OpenError {
    match open::open(dir, steps).and_then(|opened| opened.checking.wait()) {
        Ok(()) => panic!("it was opened"),
        Err(error) => error,
    }
}

async fn note(store: &Store, text: String) -> Result<i64, StoreError> {
    store
        .write(move |conn| {
            conn.execute("INSERT INTO notes (text) VALUES (?1)", [&text])?;
            conn.execute("UPDATE sums SET sum = sum + 1", [])?;
            Ok(conn.last_insert_rowid())
        })
        .await
}

async fn count(store: &Store) -> (i64, i64) {
    let look = |conn: &Connection| {
        Ok(conn.query_row("SELECT (SELECT count(*) FROM notes), sum FROM sums", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?)
    };
    store.read(look).await.unwrap()
}

/// Holds the writer inside a transaction until the sender is dropped.
fn hold(store: &Store) -> (mpsc::Sender<()>, mpsc::Receiver<()>, impl Future<Output = Result<(), StoreError>> + use<>) {
    let ((go, wait), (entered, inside)) = (mpsc::channel::<()>(), mpsc::channel());
    let store = store.clone();
    let held = async move {
        store
            .write(move |_| {
                entered.send(()).unwrap();
                let _ = wait.recv();
                Ok(())
            })
            .await
    };
    (go, inside, held)
}

#[test]
fn writes_that_wait_share_one_transaction_and_fail_alone() {
    let rig = Rig::start();
    let store = &rig.store;
    run(async {
        note(store, "taken".into()).await.unwrap();
        let before = store.counts().transactions.get();
        let (go, inside, held) = hold(store);
        let mut held = Box::pin(held);
        assert!(futures_util::poll!(&mut held).is_pending());
        inside.recv().unwrap();
        // While the writer is held, a hundred come; every tenth breaks a rule after it has changed something.
        let waiting: Vec<_> =
            (0..100).map(|i| note(store, if i % 10 == 3 { "taken".into() } else { format!("note {i}") })).collect();
        let mut waiting = Box::pin(futures_util::future::join_all(waiting));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(go);
        held.await.unwrap();
        for (i, result) in waiting.await.into_iter().enumerate() {
            assert_eq!(matches!(result, Err(StoreError::Refused(_))), i % 10 == 3, "{i}: {result:?}");
        }
        assert_eq!(store.counts().transactions.get() - before, 2, "the held one, and one for all that waited");
        assert_eq!(count(store).await, (91, 91), "what failed has changed nothing");
        assert_eq!((store.counts().writes.get(), store.counts().failures.get()), (92, 10));
    });
}

#[test]
fn full_queues_refuse_and_what_was_taken_is_done() {
    let rig = Rig::start();
    let store = &rig.store;
    run(async {
        let (go, inside, held) = hold(store);
        let mut held = Box::pin(held);
        assert!(futures_util::poll!(&mut held).is_pending());
        inside.recv().unwrap();
        let mut waiting = Vec::new();
        for i in 0..WRITE_QUEUE {
            let mut one = Box::pin(note(store, format!("{i}")));
            assert!(futures_util::poll!(&mut one).is_pending());
            waiting.push(one);
        }
        assert_eq!(note(store, "one too many".into()).await, Err(StoreError::Busy));
        // Who goes away has asked nevertheless.
        drop(waiting.drain(..10));
        drop(go);
        held.await.unwrap();
        for result in futures_util::future::join_all(waiting).await {
            result.unwrap();
        }
        // The ten came before those that were awaited.
        assert_eq!(count(store).await.0, WRITE_QUEUE as i64);
        note(store, "there is room again".into()).await.unwrap();
    });
}

#[test]
fn a_full_disk_refuses_all_of_a_group_and_health_tells() {
    let rig = Rig::start();
    let store = &rig.store;
    let limit = |pages: &'static str| {
        store.write(move |conn| {
            Ok(conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))?)
        })
    };
    run(async {
        let pages =
            store.read(|conn| Ok(conn.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))?)).await.unwrap();
        // The smallest that it can be is what it has.
        assert_eq!(limit("1").await.unwrap(), pages);
        assert!(rig.lifecycle.store_healthy());
        let big = "x".repeat(100_000);
        assert_eq!(note(store, big.clone()).await, Err(StoreError::Full));
        assert!(!rig.lifecycle.store_healthy(), "it was answered after health was told");
        assert_eq!(count(store).await, (0, 0));
        let (go, inside, held) = hold(store);
        let mut held = Box::pin(held);
        assert!(futures_util::poll!(&mut held).is_pending());
        inside.recv().unwrap();
        let mut both = Box::pin(futures_util::future::join(note(store, "small".into()), note(store, big.clone())));
        assert!(futures_util::poll!(&mut both).is_pending());
        drop(go);
        held.await.unwrap();
        let (small, large) = both.await;
        assert_eq!(large, Err(StoreError::Full));
        // The small one is taken or not, as the answer says.
        assert_eq!(count(store).await.0, i64::from(small.is_ok()));
        limit("1000000").await.unwrap();
        assert!(rig.lifecycle.store_healthy());
        note(store, big).await.unwrap();
    });
}

#[test]
fn health_comes_back_without_a_write() {
    let rig = Rig::start();
    // Another program that takes the write lock is an outage; that it has gone is found by the probe.
    let intruder = Connection::open(rig.file()).unwrap();
    intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = run(note(&rig.store, "a".into()));
    assert!(matches!(refused, Err(StoreError::Disk(_))), "{refused:?}");
    assert!(!rig.lifecycle.store_healthy());
    intruder.execute_batch("ROLLBACK").unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !rig.lifecycle.store_healthy() {
        assert!(Instant::now() < deadline, "it stays unhealthy");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(run(count(&rig.store)), (0, 0));
}

#[test]
fn stopping_does_what_is_queued_and_nothing_more() {
    let Rig { dir, lifecycle, store, threads } = Rig::start();
    run(async {
        let (go, inside, held) = hold(&store);
        let mut held = Box::pin(held);
        assert!(futures_util::poll!(&mut held).is_pending());
        inside.recv().unwrap();
        let mut queued = Box::pin(note(&store, "queued".into()));
        assert!(futures_util::poll!(&mut queued).is_pending());
        drop(go);
        threads.stop();
        held.await.unwrap();
        queued.await.unwrap();
        assert_eq!(note(&store, "late".into()).await, Err(StoreError::Stopped));
    });
    assert!(!lifecycle.store_healthy());
    // The reader goes with the last way to it; the lock went with the writer.
    drop(store);
    let again = open::open(dir.path(), STEPS).unwrap();
    let found: i64 = again.reader.query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap();
    assert_eq!(found, 1);
}

#[test]
fn files_are_the_owners_alone() {
    let rig = Rig::start();
    run(note(&rig.store, "a".into())).unwrap();
    for entry in fs::read_dir(rig.dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
    assert_eq!(fs::read_dir(rig.dir.path()).unwrap().count(), 4, "the database, its log, its index, the lock");
    // It makes the directory, and everything above it, for the owner alone.
    let deep = rig.dir.path().join("a/b");
    drop(open::open(&deep, STEPS).unwrap());
    assert_eq!(fs::metadata(&deep).unwrap().mode() & 0o777, 0o700);
    fs::set_permissions(&deep, Permissions::from_mode(0o750)).unwrap();
    let text = refused(&deep, STEPS).to_string();
    assert!(text.ends_with(&format!("(mode 0750); run: chmod 700 {}", deep.display())), "{text}");
    fs::set_permissions(&deep, Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(deep.join(open::FILE), Permissions::from_mode(0o644)).unwrap();
    let text = refused(&deep, STEPS).to_string();
    assert!(text.contains("(mode 0644); run: chmod 600 "), "{text}");
}

#[test]
fn a_database_is_migrated_and_a_newer_or_foreign_one_refused() {
    let dir = folder();
    let first = open::open(dir.path(), &STEPS[..1]).unwrap();
    first.writer.execute("INSERT INTO notes (text) VALUES ('kept')", []).unwrap();
    drop(first);
    // A step that fails is taken back whole.
    let broken = ["", "CREATE TABLE half (id INTEGER) STRICT; CREATE TABLE notes (id INTEGER) STRICT"];
    assert!(matches!(refused(dir.path(), &broken), OpenError::Other { .. }));
    let second = open::open(dir.path(), STEPS).unwrap();
    let sql = "SELECT (SELECT text FROM notes) || (SELECT sum FROM sums) || (SELECT count(*) FROM sqlite_schema WHERE name = 'half')";
    assert_eq!(second.reader.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap(), "kept00");
    assert!(second.reader.execute("DELETE FROM notes", []).is_err(), "the reader cannot write");
    drop(second);
    let newer = refused(dir.path(), &STEPS[..1]);
    assert!(matches!(newer, OpenError::Newer { found: 2, known: 1, .. }), "{newer}");
    let theirs = folder();
    Connection::open(theirs.path().join(open::FILE)).unwrap().execute_batch("CREATE TABLE cats (name)").unwrap();
    fs::set_permissions(theirs.path().join(open::FILE), Permissions::from_mode(0o600)).unwrap();
    let foreign = refused(theirs.path(), STEPS);
    assert!(matches!(foreign, OpenError::Foreign { .. }), "{foreign}");
}

#[test]
fn a_damaged_file_is_refused_and_left_alone() {
    let dir = folder();
    let path = dir.path().join(open::FILE);
    let opened = open::open(dir.path(), STEPS).unwrap();
    let insert = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                  INSERT INTO notes (text) SELECT 'some text ' || i FROM n";
    opened.writer.execute(insert, []).unwrap();
    drop(opened);
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > 20 * 4096, "{}", whole.len());
    type Harm = fn(&mut Vec<u8>);
    let harms: [(&str, Harm); 4] = [
        ("not a database at all", |bytes| *bytes = b"a letter to nobody, which is long enough".repeat(200)),
        ("cut off", |bytes| bytes.truncate(5 * 4096)),
        ("a page of zeros", |bytes| bytes[4 * 4096..5 * 4096].fill(0)),
        ("a page of noise", |bytes| bytes[6 * 4096..7 * 4096].fill(0xa5)),
    ];
    for (name, harm) in harms {
        let mut bytes = whole.clone();
        harm(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let error = refused(dir.path(), STEPS);
        assert!(matches!(error, OpenError::Damaged { .. }), "{name}: {error}");
        assert!(error.to_string().contains("`ringwall backup`"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
    }
    fs::write(&path, &whole).unwrap();
    open::open(dir.path(), STEPS).unwrap().checking.wait().unwrap();
}

#[test]
fn one_process_has_it_and_the_lock_ends_with_the_process() {
    let rig = Rig::start();
    let text = refused(rig.dir.path(), STEPS).to_string();
    assert!(text.contains("in use by another ringwall process; stop that one, or"), "{text}");
    // Reading and copying goes on beside it.
    run(note(&rig.store, "a".into())).unwrap();
    let conn = open::open_to_read(&rig.file()).unwrap();
    assert_eq!(conn.query_row("SELECT text FROM notes", [], |row| row.get::<_, String>(0)).unwrap(), "a");
}

#[test]
fn copies_are_whole_while_writes_go_on() {
    let rig = Rig::start();
    let to = rig.dir.path().join("copy.db");
    let stop = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> = (0..2)
        .map(|writer| {
            let (store, stop) = (rig.store.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    run(note(&store, format!("{writer} {done} {}", "x".repeat(500)))).unwrap();
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut last = 0;
    for _ in 0..20 {
        // Everything that was answered before the copy begins is in it, and each change is whole in it.
        let before = run(count(&rig.store)).0;
        let len = backup(rig.dir.path(), &to, true).unwrap();
        assert_eq!((fs::metadata(&to).unwrap().len(), fs::metadata(&to).unwrap().mode() & 0o777), (len, 0o600));
        let copy = Connection::open(&to).unwrap();
        let sql = "SELECT (SELECT count(*) FROM notes), sum FROM sums";
        let (notes, sum): (i64, i64) = copy.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(notes, sum);
        assert!(notes >= before && before >= last, "{notes} of {before}");
        last = before;
        assert_eq!(copy.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    }
    stop.store(true, Ordering::Relaxed);
    let written: i64 = writing.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(written > 0);
    assert!(matches!(backup(rig.dir.path(), &to, false), Err(BackupError::Exists(_))));
    assert!(matches!(backup(to.parent().unwrap().join("none").as_path(), &to, true), Err(BackupError::NoDatabase(_))));
    let left: Vec<_> = fs::read_dir(rig.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("draft")), "{left:?}");
    // A copy in the place of the database is a database.
    let place = folder();
    fs::copy(&to, place.path().join(open::FILE)).unwrap();
    drop(open::open(place.path(), STEPS).unwrap());
}

/// Not a test by itself: what [`what_was_answered_survives_kill_9`] starts and kills.
#[test]
#[ignore = "a child process of another test"]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os("RINGWALL_STORE_TEST_DIR") else { return };
    let (store, _threads, _) = Store::start(open::open(Path::new(&dir), STEPS).unwrap(), lifecycle()).unwrap();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || {
                for i in 0u64.. {
                    let text = format!("{} {:?} {i}", std::process::id(), std::thread::current().id());
                    let id = run(note(&store, text)).unwrap();
                    // Said after it was answered, never before.
                    writeln!(std::io::stdout(), "ACK {id}").unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn what_was_answered_survives_kill_9() {
    let dir = folder();
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::child_that_writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env("RINGWALL_STORE_TEST_DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        // Killed after another number of answers each time, in the middle of whatever it does then.
        let (mut seen, mut line) = (0, String::new());
        while seen < 40 + 33 * round && out.read_line(&mut line).unwrap() > 0 {
            if let Some((_, id)) = line.trim().rsplit_once("ACK ") {
                acknowledged.push(id.parse::<i64>().unwrap());
                seen += 1;
            }
            line.clear();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen > 0, "the child wrote nothing");
        // What was in the pipe when it died was answered as well. The last line may be torn.
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
        acknowledged.extend(whole.lines().filter_map(|line| line.rsplit_once("ACK ")?.1.parse::<i64>().ok()));
        let opened = open::open(dir.path(), STEPS).unwrap();
        let sql = "SELECT (SELECT count(*) FROM notes), sum FROM sums";
        let (notes, sum): (i64, i64) = opened.reader.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(notes, sum, "every write is whole");
        for id in &acknowledged {
            let there =
                opened.reader.query_row("SELECT count(*) FROM notes WHERE id = ?1", [id], |row| row.get::<_, i64>(0));
            assert_eq!(there.unwrap(), 1, "round {round}: note {id} was answered and is gone");
        }
    }
}
