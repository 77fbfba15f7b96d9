//! A disciplined clock: steps become drift, and a new life goes on where the former one was.

use std::time::Duration;

use clock::{
    AGE_MAX_DEFAULT, Begin, CAP_DEFAULT, Course, Discipline, Followed, Monotonic, OffsetTable,
    Pace, RoundTrip, SLEW_PPM, WallTime, pace,
};
use proptest::prelude::*;

const BOOT: u128 = 7;
const EPOCH_US: u64 = 1_700_000_000_000_000;

fn mono(ms: u64) -> Monotonic {
    Monotonic::from_nanos(ms * 1_000_000)
}

/// The wall clock at monotonic millisecond `ms` if it is `ahead_us` ahead of where it began.
fn wall(ms: u64, ahead_us: i64) -> WallTime {
    WallTime::from_micros((EPOCH_US + ms * 1000).saturating_add_signed(ahead_us))
}

fn begun(ms: u64) -> Discipline {
    ready(Discipline::begin(None, BOOT, (wall(ms, 0), mono(ms)), AGE_MAX_DEFAULT))
}

fn ready(begin: Begin) -> Discipline {
    match begin {
        Begin::Ready(clock) => clock,
        Begin::Wait(wait) => panic!("it waits for {wait:?}"),
    }
}

#[test]
fn a_step_is_absorbed_at_half_a_millisecond_a_second() {
    let clock = begun(0);
    for second in 1..=100 {
        let now = mono(second * 1000);
        let followed = clock.look(wall(second * 1000, 50_000), now, CAP_DEFAULT, Pace::Slew);
        let left = Duration::from_micros(50_000 - 500 * second);
        assert_eq!(followed, Followed::Course(left), "second {second}");
        assert_eq!(clock.read(now), wall(second * 1000, 500 * second as i64));
    }
    let now = mono(101_000);
    assert_eq!(
        clock.look(wall(101_000, 50_000), now, CAP_DEFAULT, Pace::Slew),
        Followed::Course(Duration::ZERO)
    );
    assert_eq!(clock.read(now), wall(101_000, 50_000));
}

#[test]
fn a_step_beyond_the_cap_is_followed_at_once() {
    for step_us in [250_001, -250_001, 3_600_000_000, -3_600_000_000] {
        let clock = begun(0);
        let (wall, now) = (wall(200, step_us), mono(200));
        assert!(matches!(clock.look(wall, now, CAP_DEFAULT, Pace::Slew), Followed::Wall(_)));
        assert_eq!(clock.read(now), wall);
    }
}

#[test]
fn it_jumps_once_its_new_course_is_durable() {
    let clock = begun(0);
    let (to, now) = (wall(200, -100_000), mono(200));
    let Followed::Nearer(course) = clock.look(to, now, CAP_DEFAULT, Pace::Jump) else {
        panic!("nothing to follow")
    };
    let slewed = Duration::from_micros(clock.read(now).micros().abs_diff(wall(200, 0).micros()));
    assert_eq!(slewed, Duration::from_micros(100), "nothing but the slew so far");
    // A crash now: the next life is where it was to go.
    let next = ready(Discipline::begin(Some(course), BOOT, (to, now), AGE_MAX_DEFAULT));
    assert_eq!(next.read(now), to);
    clock.jump(course);
    assert_eq!(clock.read(now), to);
    assert_eq!(clock.course(), course);
    let later = clock.look(wall(400, -100_500), mono(400), CAP_DEFAULT, Pace::Jump);
    assert_eq!(later, Followed::Course(Duration::from_micros(400)), "not worth a write");
}

/// Peers are right, each measured with an error of 10 ms; both of our clocks are as far ahead of them as told.
fn pace_of(clock_ahead_us: i64, wall_ahead_us: i64, measured: u64) -> Pace {
    let mut table = OffsetTable::new(AGE_MAX_DEFAULT);
    table.set_peers([1, 2]);
    for peer in 1..=measured {
        table.record(
            peer,
            RoundTrip {
                sent: mono(80),
                received: mono(100),
                remote: wall(90, 0),
                advertised: Duration::from_millis(1),
            },
        );
    }
    let seen_from = |ahead_us| table.estimates(wall(100, ahead_us), mono(100));
    pace(&seen_from(clock_ahead_us), &seen_from(wall_ahead_us), table.peer_count())
}

#[test]
fn it_jumps_only_to_where_every_peer_is_provably_nearer() {
    assert_eq!(pace_of(200_000, 0, 2), Pace::Jump, "set right");
    assert_eq!(pace_of(200_000, -150_000, 2), Pace::Jump, "nearer on the other side");
    assert_eq!(pace_of(-200_000, -179_000, 2), Pace::Jump, "just out of the error");
    assert_eq!(pace_of(-200_000, -182_000, 2), Pace::Slew, "within the error");
    assert_eq!(pace_of(0, 50_000, 2), Pace::Slew, "away from the others");
    assert_eq!(pace_of(200_000, -210_000, 2), Pace::Slew, "farther on the other side");
    assert_eq!(pace_of(200_000, 0, 1), Pace::Slew, "one was not measured");
}

#[test]
fn the_next_life_on_the_same_boot_goes_on() {
    let clock = begun(10);
    clock.look(wall(5000, -40_000), mono(5000), CAP_DEFAULT, Pace::Slew);
    let (before, course) = (clock.read(mono(6000)), clock.course());
    // The wall clock was stepped meanwhile, and the machine has hardly been up.
    let again = (wall(6000, 90_000), mono(6000));
    let next = ready(Discipline::begin(Some(course), BOOT, again, AGE_MAX_DEFAULT));
    assert_eq!(next.read(mono(6000)), before);
}

#[test]
fn after_a_reboot_it_waits_until_nobody_knows_its_former_clock() {
    let former = Some(Course { boot: BOOT - 1, ahead_ns: 5 });
    let begin = |ms| Discipline::begin(former, BOOT, (wall(ms, 0), mono(ms)), AGE_MAX_DEFAULT);
    let needed = AGE_MAX_DEFAULT + Duration::from_secs(1);
    let Begin::Wait(wait) = begin(300) else { panic!("it begins too early") };
    assert_eq!(wait, needed - Duration::from_millis(300));
    let up = needed.as_millis() as u64;
    assert!(matches!(begin(up - 1), Begin::Wait(_)));
    assert_eq!(ready(begin(up)).read(mono(up)), wall(up, 0));
}

#[test]
fn the_first_life_waits_for_nobody() {
    assert_eq!(begun(1).read(mono(1)), wall(1, 0));
}

proptest! {
    /// Whatever the wall clock does within the cap, and however late a look comes.
    #[test]
    fn readings_drift_by_no_more_than_the_slew(
        looks in prop::collection::vec((1u64..5000, -125_000i64..125_000), 1..60),
    ) {
        let clock = begun(0);
        let (mut at, mut ahead_ns, mut allowed_ns) = (0, 0i128, 0i128);
        for (pause, target_us) in looks {
            at += pause;
            allowed_ns += i128::from(pause) * i128::from(SLEW_PPM);
            // The twin: as far as allowed towards the wall, in the arithmetic of a child.
            let (target, most) =
                (i128::from(target_us) * 1000, i128::from(pause) * i128::from(SLEW_PPM));
            ahead_ns = target.clamp(ahead_ns - most, ahead_ns + most);
            let followed = clock.look(wall(at, target_us), mono(at), CAP_DEFAULT, Pace::Slew);
            let left = (target - ahead_ns).unsigned_abs() as u64;
            prop_assert_eq!(followed, Followed::Course(Duration::from_nanos(left)));
            let read = i128::from(clock.read(mono(at)).micros());
            let straight = i128::from(EPOCH_US + at * 1000);
            prop_assert!((read - straight).abs() * 1000 <= allowed_ns + 1000);
            prop_assert_eq!(read, (straight * 1000 + ahead_ns) / 1000);
        }
    }

    /// No wall clock is so wrong that this overflows (H15).
    #[test]
    fn any_clock_can_be_followed(
        walls in prop::collection::vec(any::<u64>(), 1..20),
        step in 0u64..u64::MAX / 40,
    ) {
        let begin = (WallTime::from_micros(walls[0]), Monotonic::ZERO);
        let clock = ready(Discipline::begin(None, BOOT, begin, AGE_MAX_DEFAULT));
        for (place, micros) in walls.iter().enumerate() {
            let now = Monotonic::from_nanos(step * place as u64);
            let wall = WallTime::from_micros(*micros);
            clock.look(wall, now, CAP_DEFAULT, Pace::Slew);
            let distance = clock.read(now).micros().abs_diff((*micros).min(u64::MAX / 1000));
            prop_assert!(distance <= CAP_DEFAULT.as_micros() as u64 + 1, "{distance}");
        }
    }
}
