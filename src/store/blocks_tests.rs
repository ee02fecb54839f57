#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use super::*;
use crate::state::lifecycle::Lifecycle;

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn block(network: &str, kind: BlockKind, until_ms: Option<u64>) -> StoredBlock {
    let network = network.parse().unwrap();
    StoredBlock { network, kind, earned: Earned::AtDoors, reason: "wörds".into(), since_ms: 5, until_ms }
}

#[test]
fn blocks_come_back_until_they_end_or_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let open = || Store::open(&path, Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
    let operators = block("203.0.113.0/24", BlockKind::Operator, None);
    let (soon, late) =
        (block("10.0.0.1/32", BlockKind::Lockout, Some(10)), block("2001:db8::/64", BlockKind::Abuse, Some(99)));
    let (store, threads) = open();
    run(async {
        store.put_blocks(vec![soon.clone(), late.clone(), operators.clone()]).await.unwrap();
        let longer = StoredBlock { until_ms: Some(20), ..soon.clone() };
        store.put_blocks(vec![longer]).await.unwrap();
    });
    drop(store);
    threads.stop();
    let (store, threads) = open();
    let longer = StoredBlock { until_ms: Some(20), ..soon };
    assert_eq!(store.blocks_now(19, 9).unwrap(), [operators.clone(), late.clone(), longer]);
    assert_eq!(store.blocks_now(20, 9).unwrap(), [operators.clone(), late.clone()]);
    assert_eq!(store.blocks_now(5, 1).unwrap(), std::slice::from_ref(&operators), "operators' first");
    let again = store.blocks_now(5, 9).unwrap().remove(1).block();
    assert!(again.is_stored() && again.is_told());
    assert_eq!(StoredBlock::of(&again), late);
    assert_eq!(StoredBlock::of(&operators.clone().block()), operators);
    run(async {
        assert_eq!(store.forget_block(operators.network).await, Ok(true));
        assert_eq!(store.forget_block(operators.network).await, Ok(false));
        assert_eq!(store.forget_ended_blocks(20, 9).await, Ok(1));
    });
    assert_eq!(store.blocks_now(0, 9).unwrap(), [late]);
    drop(store);
    threads.stop();
}

#[test]
fn of_automatic_ones_so_many_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, threads) = Store::open(&dir.path().join("data"), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
    run(async {
        let many = (0..50_u8).map(|n| block(&format!("10.0.0.{n}/32"), BlockKind::Lockout, Some(100 + u64::from(n))));
        store.put_blocks(many.chain([block("::/0", BlockKind::Operator, Some(7))]).collect()).await.unwrap();
        assert_eq!(store.forget_ended_blocks(6, 20).await, Ok(30));
    });
    let left = store.blocks_now(6, 99).unwrap();
    assert_eq!(left.len(), 21);
    assert!(left.iter().skip(1).all(|block| block.until_ms >= Some(130)), "those that end last");
    drop(store);
    threads.stop();
}
