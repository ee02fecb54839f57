#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the threads of a test are its own")]

use super::*;

fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], port))
}

fn arrival(door: Door, door_limit: u64, peer: SocketAddr, address_limit: u16) -> Arrival {
    Arrival { door, door_limit, peer, address_limit: Some(address_limit), worker: 0, now_ms: 1_000 }
}

#[cfg(not(loom))]
mod threads {
    use super::*;
    use std::collections::hash_map::RandomState;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    type Table = Arc<ConnectionTable<RandomState>>;

    fn table(max: usize, workers: usize) -> Table {
        Arc::new(ConnectionTable::new(Arc::default(), max, workers, RandomState::new()))
    }

    fn rows(table: &Table) -> Vec<Row> {
        let page = table.page(None, usize::MAX, |_| true);
        assert_eq!((page.next, page.unread), (None, 0));
        page.rows
    }

    fn open(table: &Table, last: u8) -> ConnectionEntry<RandomState> {
        table.open(&arrival(Door::Http, 100, address(last, 1), 100)).unwrap()
    }

    #[test]
    fn a_row_says_who_and_from_where_and_how_much() {
        let table = table(10, 2);
        let peer: SocketAddr = "[2001:db8::7]:4711".parse().unwrap();
        let mut entry = table.open(&Arrival { worker: 1, ..arrival(Door::Http, 9, peer, 9) }).unwrap();
        let fresh = Row {
            id: entry.id(),
            door: Door::Http,
            peer,
            client: peer.ip(),
            principal: PrincipalKind::Unknown,
            agent: AgentText::new(),
            worker: 1,
            opened_at_ms: 1_000,
            last_activity_ms: 1_000,
            messages_in: 0,
            messages_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            closing: None,
        };
        assert_eq!(rows(&table), std::slice::from_ref(&fresh));
        let agent = "ä".repeat(63) + "bc";
        entry.identify(PrincipalKind::Agent, &agent);
        entry.move_to(Door::Ws, 1).unwrap();
        entry.set_client_ip("192.0.2.9".parse().unwrap(), Some(1)).unwrap();
        entry.touch(2_000);
        entry.received(1, 100);
        entry.received(1, 1);
        entry.sent(3, 7);
        let later = Row {
            door: Door::Ws,
            client: "192.0.2.9".parse().unwrap(),
            principal: PrincipalKind::Agent,
            agent: AgentText::from(&agent).unwrap(),
            last_activity_ms: 2_000,
            messages_in: 2,
            messages_out: 3,
            bytes_in: 101,
            bytes_out: 7,
            ..fresh
        };
        assert_eq!(rows(&table), [later]);
        entry.identify(PrincipalKind::Agent, &("x".to_owned() + &"ä".repeat(100)));
        assert_eq!(rows(&table)[0].agent.as_str(), "x".to_owned() + &"ä".repeat(63), "cut at a character");
        entry.identify(PrincipalKind::Door, "");
        assert_eq!((rows(&table)[0].agent.as_str(), rows(&table)[0].principal), ("", PrincipalKind::Door));
        drop(entry);
        assert!(rows(&table).is_empty());
        let next = open(&table, 1);
        assert_eq!((rows(&table)[0].bytes_in, rows(&table)[0].principal), (0, PrincipalKind::Unknown));
        drop(next);
    }

    #[test]
    fn what_is_refused_leaves_nothing_behind() {
        let table = table(4, 1);
        let doors = Arc::clone(&table.doors);
        let held = [open(&table, 1), open(&table, 1)];
        let refused = |door, door_limit, last, address_limit| {
            table.open(&arrival(door, door_limit, address(last, 1), address_limit)).err()
        };
        assert_eq!(refused(Door::Http, 2, 2, 9), Some(Refused::Door));
        assert_eq!(refused(Door::Tcp, 9, 1, 2), Some(Refused::Address));
        assert_eq!((doors.open(Door::Http), doors.open(Door::Tcp)), (2, 0));
        assert_eq!((table.admission.count(address(1, 0).ip()), table.admission.count(address(2, 0).ip())), (2, 0));
        assert_eq!(rows(&table).len(), 2);
        // A limit that was raised later finds the table full, and says so.
        let more: Vec<_> = (0..4 - 2 + SLACK).map(|_| open(&table, 3)).collect();
        assert_eq!(refused(Door::Ws, 99, 4, 9), Some(Refused::Full));
        assert_eq!((doors.open(Door::Ws), table.admission.count(address(4, 0).ip())), (0, 0));
        drop((held, more));
        assert_eq!((doors.open(Door::Http), table.admission.occupied()), (0, 0));
    }

    #[test]
    fn a_move_that_is_refused_changes_nothing() {
        let table = table(9, 1);
        let other = table.open(&arrival(Door::Ws, 1, address(2, 1), 1)).unwrap();
        let mut entry = open(&table, 1);
        let before = rows(&table);
        assert_eq!(entry.move_to(Door::Ws, 1), Err(Refused::Door));
        assert_eq!(entry.set_client_ip(address(2, 0).ip(), Some(1)), Err(Refused::Address));
        assert_eq!(rows(&table), before);
        assert_eq!((entry.door(), table.admission.count(address(1, 0).ip())), (Door::Http, 1));
        drop(other);
        entry.set_client_ip(address(2, 0).ip(), Some(1)).unwrap();
        // The same again is no second connection.
        entry.set_client_ip(address(2, 0).ip(), Some(1)).unwrap();
        assert_eq!((table.admission.count(address(1, 0).ip()), table.admission.count(address(2, 0).ip())), (0, 1));
    }

    #[test]
    fn a_request_to_close_hits_its_connection_alone() {
        let table = table(9, 2);
        let (stays, goes) = (open(&table, 1), open(&table, 2));
        assert!(!table.has_rung(0));
        assert_eq!(table.request_close(goes.id(), CloseReason::Admin).unwrap().client, address(2, 0).ip());
        assert_eq!(table.request_close(goes.id(), CloseReason::Revoked).unwrap().closing, Some(CloseReason::Admin));
        assert_eq!((goes.asked_to_close(), stays.asked_to_close()), (Some(CloseReason::Admin), None));
        assert!(!table.has_rung(1), "another worker's");
        assert!(table.has_rung(0) && !table.has_rung(0));
        let stale = goes.id();
        drop(goes);
        assert_eq!(table.request_close(stale, CloseReason::Admin).err(), Some(NotOpen));
        let heir = open(&table, 3);
        assert_eq!(heir.id().index(), stale.index(), "the same slot");
        assert_eq!(table.request_close(stale, CloseReason::Admin).err(), Some(NotOpen));
        assert_eq!((heir.asked_to_close(), rows(&table)[1].closing), (None, None));
        assert_eq!(table.request_close(ConnectionId(u64::MAX), CloseReason::Admin).err(), Some(NotOpen));
        assert_eq!(table.request_close(ConnectionId(0), CloseReason::Admin).err(), Some(NotOpen));
        assert!(!table.has_rung(0));
    }

    #[test]
    fn pages_join_to_the_whole() {
        let table = table(20, 3);
        let held: Vec<_> = (0..20).map(|n| open(&table, n)).collect();
        let wanted = |row: &Row| row.client != address(4, 0).ip();
        let (mut found, mut start) = (Vec::new(), None);
        loop {
            let page = table.page(start, 3, wanted);
            assert!(page.rows.len() == 3 || page.next.is_none());
            found.extend(page.rows.into_iter().map(|row| row.id));
            start = page.next;
            if start.is_none() {
                break;
            }
        }
        let mut expected: Vec<_> = held.iter().map(ConnectionEntry::id).collect();
        expected.remove(4);
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(table.page(None, 0, wanted).rows.len(), 0);
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = ConnectionId::new(0x12, 0xab);
        assert_eq!(id.to_string(), "120000ab");
        assert_eq!("120000ab".parse(), Ok(id));
        for text in ["", "+1", "-1", "x", "10000000000000000", " 1"] {
            assert!(text.parse::<ConnectionId>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        /// One thread must agree with a plain list of what is open.
        #[test]
        fn agrees_with_a_list(
            steps in proptest::collection::vec((0_u8..6, 0_u8..3, proptest::num::u8::ANY), 0..150),
        ) {
            const DOOR_LIMIT: u64 = 4;
            const ADDRESS_LIMIT: u16 = 3;
            let doors = [Door::Ws, Door::Tcp, Door::Http];
            let table = table(12, 2);
            let mut held: Vec<(ConnectionEntry<RandomState>, Row)> = Vec::new();
            for (act, n, pick) in steps {
                let (door, ip) = (doors[usize::from(n)], address(pick % 3, 9));
                let at_door = held.iter().filter(|(_, row)| row.door == door).count() as u64;
                let at_address = held.iter().filter(|(_, row)| row.client == ip.ip()).count();
                let door_is_full = at_door >= DOOR_LIMIT;
                let address_is_full = at_address >= usize::from(ADDRESS_LIMIT);
                let at = usize::from(pick).checked_rem(held.len()).unwrap_or(0);
                match (act, held.get_mut(at)) {
                    (0..=1, _) => {
                        let arrival = Arrival { worker: usize::from(n), ..arrival(door, DOOR_LIMIT, ip, ADDRESS_LIMIT) };
                        match table.open(&arrival) {
                            Ok(entry) => {
                                proptest::prop_assert!(!door_is_full && !address_is_full);
                                let row = rows(&table).into_iter().find(|row| row.id == entry.id()).unwrap();
                                proptest::prop_assert!(held.iter().all(|(_, other)| other.id != row.id));
                                held.push((entry, row));
                            }
                            Err(Refused::Door) => proptest::prop_assert!(door_is_full),
                            Err(refused) => {
                                proptest::prop_assert_eq!(refused, Refused::Address);
                                proptest::prop_assert!(!door_is_full && address_is_full);
                            }
                        }
                    }
                    (2, Some((entry, row))) => {
                        let moved = entry.move_to(door, DOOR_LIMIT).is_ok();
                        proptest::prop_assert_eq!(moved, !door_is_full);
                        row.door = if moved { door } else { row.door };
                    }
                    (3, Some((entry, row))) => {
                        let moved = entry.set_client_ip(ip.ip(), Some(ADDRESS_LIMIT)).is_ok();
                        proptest::prop_assert_eq!(moved, !address_is_full || row.client == ip.ip());
                        row.client = if moved { ip.ip() } else { row.client };
                    }
                    (4, Some((entry, row))) => {
                        entry.received(1, u64::from(pick));
                        entry.identify(PrincipalKind::Agent, "agent");
                        (row.messages_in, row.bytes_in) = (row.messages_in + 1, row.bytes_in + u64::from(pick));
                        (row.principal, row.agent) = (PrincipalKind::Agent, AgentText::from("agent").unwrap());
                        table.request_close(row.id, CloseReason::Revoked).unwrap();
                        row.closing = Some(CloseReason::Revoked);
                    }
                    (_, Some(_)) => drop(held.swap_remove(at)),
                    (_, None) => {}
                }
                let (mut listed, mut expected) = (rows(&table), held.iter().map(|(_, row)| row.clone()).collect::<Vec<_>>());
                listed.sort_unstable_by_key(|row| row.id);
                expected.sort_unstable_by_key(|row| row.id);
                proptest::prop_assert_eq!(listed, expected);
            }
        }
    }

    /// One worker a core (four at least) opens, names, counts, moves and closes in a rush, while a reader lists and asks for closes: never
    /// one over a limit, no torn row, and a request only ever reaches the connection it names.
    #[test]
    fn under_load_limits_hold_and_rows_are_whole() {
        const LIMIT: u64 = 5;
        const ROUNDS: u64 = 20_000;
        let workers = std::thread::available_parallelism().unwrap().get().max(4);
        let table = table(2 * LIMIT as usize, workers);
        let (done, is_seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let reader = std::thread::spawn({
            let (table, done, is_seen) = (Arc::clone(&table), Arc::clone(&done), Arc::clone(&is_seen));
            move || {
                let (mut seen, mut asked) = (0_u64, std::collections::HashSet::new());
                while !done.load(SeqCst) {
                    for row in table.page(None, usize::MAX, |_| true).rows {
                        seen += 1;
                        is_seen.store(true, SeqCst);
                        assert_eq!(row.opened_at_ms, u64::from(row.peer.port()), "{row:?}");
                        if !row.agent.is_empty() {
                            assert_eq!(row.agent.as_str(), format!("agent-{}", row.opened_at_ms).repeat(7), "{row:?}");
                        }
                        if seen.is_multiple_of(7) && table.request_close(row.id, CloseReason::Admin).is_ok() {
                            asked.insert(row.id);
                        }
                    }
                }
                (seen, asked)
            }
        });
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                let (table, is_seen) = (Arc::clone(&table), Arc::clone(&is_seen));
                std::thread::spawn(move || {
                    let (mut opened, mut told, start) = (0_u64, Vec::new(), std::time::Instant::now());
                    // On one core, until the reader had its turn.
                    let is_over = |n| n >= ROUNDS && (is_seen.load(SeqCst) || start.elapsed().as_secs() > 120);
                    for n in (0..).take_while(|n| !is_over(*n)) {
                        let port = u16::try_from((n * workers as u64 + worker as u64) % 60_000).unwrap();
                        let arrival = Arrival {
                            worker,
                            now_ms: u64::from(port),
                            ..arrival(Door::Http, LIMIT, address(u8::try_from(n % 2).unwrap(), port), LIMIT as u16)
                        };
                        let Ok(mut entry) = table.open(&arrival) else {
                            // Whoever has the places needs a core to give them back.
                            std::thread::yield_now();
                            continue;
                        };
                        opened += 1;
                        entry.identify(PrincipalKind::Agent, &format!("agent-{port}").repeat(7));
                        entry.received(1, 1);
                        let _ = entry.move_to(Door::Ws, LIMIT);
                        assert!(table.doors.open(Door::Http) <= LIMIT && table.doors.open(Door::Ws) <= LIMIT);
                        if entry.asked_to_close().is_some() {
                            told.push(entry.id());
                        }
                        let _ = table.has_rung(worker);
                    }
                    (opened, told)
                })
            })
            .collect();
        let (mut opened, mut told) = (0, Vec::new());
        for thread in threads {
            let (one_opened, one_told) = thread.join().unwrap();
            opened += one_opened;
            told.extend(one_told);
        }
        done.store(true, SeqCst);
        let (seen, asked) = reader.join().unwrap();
        assert!(opened > ROUNDS && seen > 0, "{opened} {seen}");
        assert!(told.iter().all(|id| asked.contains(id)), "told without having been asked");
        assert!(rows(&table).is_empty());
        assert_eq!((table.doors.open(Door::Http), table.doors.open(Door::Ws), table.admission.occupied()), (0, 0, 0));
    }

    /// All threads at one door and one address at once: the lower limit gets in, and is listed.
    #[test]
    fn a_rush_admits_exactly_the_lower_limit() {
        for (door_limit, address_limit) in [(7, 20), (20, 7)] {
            for _ in 0..100 {
                let table = table(20, 4);
                let rush: Vec<_> = (0..4)
                    .map(|worker| {
                        let table = Arc::clone(&table);
                        std::thread::spawn(move || {
                            let arrival = arrival(Door::Tcp, door_limit, address(1, 1), address_limit);
                            let arrival = Arrival { worker, ..arrival };
                            (0..5).filter_map(|_| table.open(&arrival).ok()).collect::<Vec<_>>()
                        })
                    })
                    .collect();
                let held: Vec<_> = rush.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
                assert_eq!((held.len(), rows(&table).len()), (7, 7));
            }
        }
    }
}

#[cfg(loom)]
mod interleavings {
    use super::*;
    use std::hash::{BuildHasherDefault, Hasher};

    /// Loom needs the same hashes in each run.
    #[derive(Default)]
    struct Plain(u64);

    impl Hasher for Plain {
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.wrapping_mul(31).wrapping_add(u64::from(*byte));
            }
        }
        fn finish(&self) -> u64 {
            self.0 << 16
        }
    }

    type Fixed = BuildHasherDefault<Plain>;

    fn check(model: impl Fn(Arc<ConnectionTable<Fixed>>) + Sync + Send + 'static) {
        check_with(1, model);
    }

    fn check_with(slots: usize, model: impl Fn(Arc<ConnectionTable<Fixed>>) + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(move || model(Arc::new(ConnectionTable::new(Arc::default(), slots, 1, Fixed::default()))));
    }

    /// Two come to the last place of a door, or of an address: one gets it at most, and nothing is left behind.
    #[test]
    fn never_one_over() {
        for (door_limit, address_limit) in [(1, 2), (2, 1)] {
            // With a slot for both, so that the limits alone keep one out.
            check_with(2, move |table| {
                let inside = Arc::new(AtomicU64::new(0));
                let enter = move |table: &Arc<ConnectionTable<Fixed>>, inside: &AtomicU64| {
                    if let Ok(entry) = table.open(&arrival(Door::Http, door_limit, address(2, 1), address_limit)) {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are in");
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(entry);
                    }
                };
                let rival = {
                    let (table, inside) = (Arc::clone(&table), Arc::clone(&inside));
                    loom::thread::spawn(move || enter(&table, &inside))
                };
                enter(&table, &inside);
                rival.join().unwrap();
                assert_eq!((table.doors.open(Door::Http), table.admission.occupied()), (0, 0));
            });
        }
    }

    fn fields(table: &ConnectionTable<Fixed>) -> Fields<'_> {
        Fields::of(table.slots.words(0).unwrap())
    }

    /// One connection ends and the next takes its slot, while another thread reads: what it reads is of one of them. (A row has more words;
    /// all are read and written in the same way, and each one more multiplies what there is to explore.)
    #[test]
    fn no_row_is_of_two_connections() {
        check(|table| {
            let owner = {
                let table = Arc::clone(&table);
                loom::thread::spawn(move || {
                    for n in 1..=2 {
                        let entry = table.open(&arrival(Door::Tcp, 1, address(n, 1), 1)).unwrap();
                        entry.received(0, u64::from(n) * 10);
                        drop(entry);
                    }
                })
            };
            let fields = fields(&table);
            let look = || (fields.id.load(Ordering::Relaxed), fields.bytes_in.load(Ordering::Relaxed));
            if let Some((id, bytes)) = seqlock::read(fields.version, look) {
                assert!(bytes == 0 || bytes == ConnectionId(id).generation() * 10, "{id} {bytes}");
            }
            owner.join().unwrap();
        });
    }

    /// A request for a connection races with its end and with the next one in its slot: the next one is never asked.
    #[test]
    fn a_late_request_hits_nobody_else() {
        check(|table| {
            let first = table.open(&arrival(Door::Tcp, 1, address(1, 1), 1)).unwrap();
            let id = first.id();
            let operator = {
                let table = Arc::clone(&table);
                loom::thread::spawn(move || note_close(&fields(&table), id, CloseReason::Admin).is_ok())
            };
            drop(first);
            let second = table.open(&arrival(Door::Tcp, 1, address(2, 2), 1)).unwrap();
            assert_eq!(second.asked_to_close(), None);
            operator.join().unwrap();
            assert_eq!(second.asked_to_close(), None);
        });
    }

    /// Two operators, one with an old id: the request for the connection that is open is never lost.
    #[test]
    fn an_old_request_does_not_displace_a_new_one() {
        check(|table| {
            let first = table.open(&arrival(Door::Tcp, 1, address(1, 1), 1)).unwrap();
            let old = first.id();
            let operator = {
                let table = Arc::clone(&table);
                loom::thread::spawn(move || {
                    let _ = note_close(&fields(&table), old, CloseReason::Revoked);
                })
            };
            drop(first);
            let second = table.open(&arrival(Door::Tcp, 1, address(2, 2), 1)).unwrap();
            assert_eq!(note_close(&fields(&table), second.id(), CloseReason::Admin), Ok(()));
            operator.join().unwrap();
            assert_eq!(second.asked_to_close(), Some(CloseReason::Admin));
        });
    }

    /// A request that was noted before the bell is heard is seen by the worker that heard it; none is slept through.
    #[test]
    fn who_hears_the_bell_sees_the_request() {
        check(|table| {
            let entry = table.open(&arrival(Door::Tcp, 1, address(1, 1), 1)).unwrap();
            let id = entry.id();
            let operator = {
                let table = Arc::clone(&table);
                loom::thread::spawn(move || table.request_close(id, CloseReason::Admin).is_ok())
            };
            let heard = table.has_rung(0);
            assert!(!heard || entry.asked_to_close().is_some());
            assert!(operator.join().unwrap());
            assert!(heard || table.has_rung(0));
        });
    }
}
