//! A power cut or a kill at any point leaves a prefix of the batches that contains everything acknowledged; damage to
//! what was durable is never dropped in silence.

use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;

use storage::StorageError;
use storage::log::sim_file::{Crash, FileOperation};
use storage::log::{
    Entry, Log, LogBatch, LogGroup, LogIndex, LogOp, LogOptions, LogSequence, SegmentedLog, SimDir,
    Term,
};

use crate::log_twin::{Maker, check, held_by, sync};

fn small(pending_bytes_max: usize) -> LogOptions {
    LogOptions {
        segment_bytes: 8192,
        cache_bytes: 256,
        rewrite_bytes_per_append: 200,
        pending_bytes_max,
        ..LogOptions::default()
    }
}

fn open(dir: &SimDir, options: LogOptions) -> SegmentedLog {
    SegmentedLog::open(Arc::new(dir.clone()), options).expect("opens")
}

/// Runs a fixed script until it ends or the disk dies; returns what was acknowledged.
fn run(dir: &SimDir, maker: &mut Maker, batch_count: usize) -> LogSequence {
    let mut acknowledged = LogSequence(0);
    let Ok(log) = SegmentedLog::open(Arc::new(dir.clone()), small(900)) else {
        return acknowledged;
    };
    for number in 0..batch_count {
        let batch = maker.batch(120);
        if log.append(batch).is_err() {
            maker.cut(maker.batches.len() - 1);
            break;
        }
        if number % 3 == 2 && !sync(&log, &mut acknowledged) {
            break;
        }
    }
    acknowledged
}

/// Opens what a crash left, checks it, goes on for a while, and checks again after the next crash.
fn recover_and_go_on(after: &SimDir, maker: &Maker, acknowledged: LogSequence, seed: u64) {
    let log = open(after, small(900));
    let mut maker =
        Maker { batches: maker.batches.clone(), groups: maker.groups.clone(), ..Maker::new(seed) };
    let prefix = check(&log, &maker.batches, acknowledged);
    maker.cut(prefix);
    let mut acknowledged = LogSequence(prefix as u64);
    log.append(maker.batch(60)).expect("appends");
    assert!(sync(&log, &mut acknowledged));
    log.append(maker.batch(60)).expect("appends");
    drop(log);
    let log = open(&after.crash(Crash::Seeded(seed)), small(900));
    check(&log, &maker.batches, acknowledged);
}

#[test]
fn a_kill_at_every_operation_and_a_cut_at_every_byte_recover_to_an_acknowledged_prefix() {
    const BATCHES: usize = 30;
    let whole = SimDir::new();
    run(&whole, &mut Maker::new(7), BATCHES);
    let operations = whole.operation_count();
    assert!(operations > 30, "{operations} operations");
    let mut cuts = 0;
    for last in 0..operations {
        let dir = SimDir::new();
        dir.die_after(last);
        let mut maker = Maker::new(7);
        let acknowledged = run(&dir, &mut maker, BATCHES);
        let mut check_one = |crash: Crash, go_on: bool| {
            cuts += 1;
            let after = dir.crash(crash);
            if go_on {
                recover_and_go_on(&after, &maker, acknowledged, last);
            } else {
                check(&open(&after, small(900)), &maker.batches, acknowledged);
            }
        };
        check_one(Crash::Keep, true);
        check_one(Crash::Lose, true);
        for seed in 0..6 {
            check_one(Crash::Seeded(seed * 1000 + last), true);
        }
        // Allocation writes thousands of zeros: there a cut at every 61st byte is enough.
        let bytes = dir.unsynced_bytes();
        let stride = if bytes > 4000 { 61 } else { 1 };
        for cut in (0..bytes).step_by(stride) {
            check_one(Crash::Prefix(cut), cut % 37 == 0);
        }
    }
    assert!(cuts > 5000, "only {cuts} cuts");
}

/// A recycled file's header is written over nothing that is still needed: a cut inside it leaves the old segment.
/// Batches are so large that nearly every append begins a segment.
#[test]
fn a_cut_inside_the_header_of_a_recycled_segment_leaves_the_old_one() {
    const BATCHES: usize = 150;
    let live = |dir: &SimDir, maker: &mut Maker| {
        let mut acknowledged = LogSequence(0);
        let log = SegmentedLog::open(Arc::new(dir.clone()), small(1 << 20));
        let Ok(log) = log else { return acknowledged };
        for _ in 0..BATCHES {
            if log.append(maker.batch(1500)).is_err() {
                maker.cut(maker.batches.len() - 1);
                break;
            }
            if !sync(&log, &mut acknowledged) {
                break;
            }
        }
        acknowledged
    };
    let whole = SimDir::new();
    live(&whole, &mut Maker::new(21));
    let mut cuts = 0;
    for last in 0..whole.operation_count() {
        let dir = SimDir::new();
        dir.die_after(last);
        let mut maker = Maker::new(21);
        let acknowledged = live(&dir, &mut maker);
        let bytes = dir.unsynced_bytes();
        // Headers have 44 bytes, and frames more than 48.
        for cut in (0..bytes).filter(|_| bytes < 48) {
            cuts += 1;
            check(&open(&dir.crash(Crash::Prefix(cut)), small(900)), &maker.batches, acknowledged);
        }
    }
    assert!(cuts > 100, "only {cuts} cuts");
}

#[test]
fn a_kill_during_recovery_loses_nothing() {
    for seed in 0..12 {
        let dir = SimDir::new();
        let mut maker = Maker::new(seed);
        let acknowledged = run(&dir, &mut maker, 20 + 30 * seed as usize);
        let torn = dir.crash(Crash::Seeded(seed));
        for last in 0.. {
            let again = torn.crash(Crash::Keep);
            again.die_after(last);
            let opened = SegmentedLog::open(Arc::new(again.clone()), small(900)).is_ok();
            let bytes = again.unsynced_bytes();
            let cuts = (0..bytes).step_by(1 + bytes / 60).map(Crash::Prefix);
            let seeds = [Crash::Keep, Crash::Lose, Crash::Seeded(last), Crash::Seeded(last + 100)];
            for crash in cuts.chain(seeds) {
                check(&open(&again.crash(crash), small(900)), &maker.batches, acknowledged);
            }
            if opened {
                break;
            }
        }
    }
}

/// Recovery itself may recycle the only segment: nothing in it is needed, but until the new header is whole it is
/// what is there.
#[test]
fn a_cut_inside_the_header_that_recovery_writes_loses_nothing() {
    let dir = SimDir::new();
    let group = LogGroup(1);
    let log = open(&dir, small(900));
    let batches = [
        LogBatch { ops: vec![LogOp::State { group, state: Bytes::from_static(b"vote") }] },
        LogBatch { ops: vec![LogOp::Remove { group }] },
    ];
    for batch in &batches {
        log.append(batch.clone()).expect("appends");
    }
    let acknowledged = log.sync().expect("syncs");
    let mut cuts = 0;
    for last in 0..100 {
        let again = dir.crash(Crash::Lose);
        again.die_after(last);
        let _ = SegmentedLog::open(Arc::new(again.clone()), small(900));
        for cut in 0..again.unsynced_bytes() {
            cuts += 1;
            check(&open(&again.crash(Crash::Prefix(cut)), small(900)), &batches, acknowledged);
        }
    }
    assert!(cuts > 40, "only {cuts} cuts");
}

/// The first frame of a segment is torn, the second survives; the next life begins with a frame of the same size in
/// the same file.
#[test]
fn a_survivor_of_a_torn_tail_is_not_taken_for_a_frame_of_the_next_life() {
    let batch = |text: u8, index: u64| {
        let data = Bytes::from(vec![text; 1000]);
        let entry = Entry { term: Term::new(1), index: LogIndex::new(index), data };
        LogBatch { ops: vec![LogOp::Append { group: LogGroup(1), entries: vec![entry] }] }
    };
    let mut torn = 0;
    for seed in 0..200 {
        let dir = SimDir::new();
        let log = open(&dir, small(1 << 20));
        log.append(batch(b'a', 1)).expect("appends");
        log.append(batch(b'b', 2)).expect("appends");
        dir.set_fault(FileOperation::Sync, Some(StorageError::Io("power cut".into())));
        log.sync().expect_err("the power is cut");
        let after = dir.crash(Crash::Seeded(seed));
        let log = open(&after, small(1 << 20));
        if log.recovered().last_sequence > 0 {
            continue;
        }
        torn += u64::from(log.recovered().torn);
        log.append(batch(b'c', 1)).expect("appends");
        log.sync().expect("syncs");
        let log = open(&after.crash(Crash::Lose), small(1 << 20));
        check(&log, &[batch(b'c', 1)], LogSequence(1));
    }
    assert!(torn > 10, "{torn} torn tails with survivors");
}

#[test]
fn no_flipped_bit_in_what_was_known_synced_is_dropped_in_silence() {
    let dir = SimDir::new();
    let mut maker = Maker::new(11);
    let log = open(&dir, small(1 << 20));
    let mut acknowledged = LogSequence(0);
    for _ in 0..12 {
        log.append(maker.batch(200)).expect("appends");
        assert!(sync(&log, &mut acknowledged));
    }
    drop(log);
    let dir = dir.crash(Crash::Lose);
    let (mut refused, mut kept) = (0, 0);
    for name in storage::log::LogDir::list(&dir).expect("lists") {
        let bytes = dir.content(&name).expect("is there").len();
        for offset in (0..bytes).step_by(if bytes > 20_000 { 3 } else { 1 }) {
            let rotten = dir.crash(Crash::Keep);
            assert!(rotten.flip_bit(&name, offset, (offset % 8) as u8));
            match SegmentedLog::open(Arc::new(rotten), small(1 << 20)) {
                Err(StorageError::Corrupt(_) | StorageError::Foreign(_)) => refused += 1,
                Err(other) => panic!("{name} {offset}: {other}"),
                // The last batch is the only one that nothing behind it claims to be synced.
                Ok(log) => {
                    check(&log, &maker.batches, LogSequence(acknowledged.0 - 1));
                    kept += 1;
                }
            }
        }
    }
    assert!(refused > 1000 && kept > 100, "{refused} refused, {kept} kept");
}

/// Flips so many bits of what a later write may have claimed to be durable; how many places that is.
fn rot(dir: &SimDir, flips: &[u64], near_the_beginning: bool) -> usize {
    let mut places = Vec::new();
    for name in storage::log::LogDir::list(dir).expect("lists") {
        let content = dir.content(&name).expect("is there");
        let last = dir.written_last(&name);
        let old = |place: &usize| !last.iter().any(|range| range.contains(place));
        let end = if near_the_beginning { content.len().min(4096 + 64) } else { content.len() };
        let written = (0..end).filter(|place| content[*place] != 0).filter(old);
        places.extend(written.map(|place| (name.clone(), place)));
    }
    for flip in flips.iter().filter(|_| !places.is_empty()) {
        let (name, place) = &places[*flip as usize % places.len()];
        assert!(dir.flip_bit(name, *place, (flip >> 40) as u8));
    }
    places.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever else is damaged: while what was written last is intact, nothing that was acknowledged is dropped in silence.
    #[test]
    fn no_damage_before_what_was_written_last_is_dropped_in_silence(
        seed: u64,
        rounds in 1usize..60,
        crashes: bool,
        flips in proptest::collection::vec(any::<u64>(), 1..24),
        near_the_beginning: bool,
    ) {
        let mut dir = SimDir::new();
        let mut maker = Maker::new(seed);
        let mut acknowledged = LogSequence(0);
        for life in 0..=usize::from(crashes) {
            let log = open(&dir, small(1 << 20));
            for round in 0..rounds {
                log.append(maker.batch(200)).expect("appends");
                if (round + life) % 3 > 0 {
                    prop_assert!(sync(&log, &mut acknowledged));
                }
            }
            prop_assert!(sync(&log, &mut acknowledged));
            dir = dir.crash(Crash::Lose);
        }
        rot(&dir, &flips, near_the_beginning);
        match SegmentedLog::open(Arc::new(dir), small(1 << 20)) {
            Err(StorageError::Corrupt(_) | StorageError::Foreign(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
            Ok(log) => {
                check(&log, &maker.batches, acknowledged);
            }
        }
    }
}

#[test]
fn the_first_failed_sync_is_final() {
    let dir = SimDir::new();
    let log = open(&dir, small(1 << 20));
    let mut maker = Maker::new(1);
    log.append(maker.batch(20)).expect("appends");
    dir.set_fault(FileOperation::Sync, Some(StorageError::Io("planted".into())));
    assert!(log.sync().is_err());
    dir.set_fault(FileOperation::Sync, None);
    assert!(log.sync().is_err(), "a second sync must not lie");
    assert!(log.append(maker.batch(20)).is_err());
    assert_eq!(held_by(&log).len(), held_by(&log).len(), "reads go on");
}

#[test]
fn a_full_disk_refuses_whole_batches_and_goes_on_when_there_is_room() {
    let dir = SimDir::new();
    let log = open(&dir, small(1 << 20));
    let (mut maker, mut acknowledged, mut full) = (Maker::new(9), LogSequence(0), 0);
    dir.set_capacity(Some(3 * 8192));
    for _ in 0..300 {
        let batch = maker.batch(120);
        match log.append(batch.clone()) {
            Ok(_) => {}
            Err(StorageError::Full(_)) => {
                full += 1;
                dir.set_capacity(None);
                log.append(batch).expect("there is room again");
            }
            Err(other) => panic!("{other}"),
        }
        assert!(sync(&log, &mut acknowledged));
    }
    assert!(full > 0);
    check(&log, &maker.batches, acknowledged);
    check(&open(&dir.crash(Crash::Lose), small(900)), &maker.batches, acknowledged);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn random_lives_with_crashes_equal_the_twin(
        seed: u64,
        lives in proptest::collection::vec((0usize..160, any::<u64>(), prop_oneof![1u64..6, 30u64..90], any::<bool>(), 0u64..400), 1..6),
    ) {
        let mut maker = Maker::new(seed);
        let mut dir = SimDir::new();
        let mut acknowledged = LogSequence(0);
        for (batch_count, crash_seed, sync_every, keep, die_after) in lives {
            let log = open(&dir, small(700));
            let prefix = check(&log, &maker.batches, acknowledged);
            maker.cut(prefix);
            acknowledged = LogSequence(prefix as u64);
            if die_after < 200 {
                dir.die_after(die_after);
            }
            for _ in 0..batch_count {
                if log.append(maker.batch(150)).is_err() {
                    maker.cut(maker.batches.len() - 1);
                    break;
                }
                if maker.below(sync_every) == 0 && !sync(&log, &mut acknowledged) {
                    break;
                }
            }
            if die_after >= 200 {
                check(&log, &maker.batches, acknowledged);
            }
            dir = dir.crash(if keep { Crash::Keep } else { Crash::Seeded(crash_seed) });
        }
        check(&open(&dir, small(700)), &maker.batches, acknowledged);
    }
}
