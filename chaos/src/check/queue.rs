//! Value: judges a queue of jobs that workers take with `FOR UPDATE SKIP LOCKED`, and whose days are closed by somebody who counts.
//!
//! Every taken job leaves a line, with its taker and the day that the taker was shown while it kept others from closing it (`FOR SHARE`).
//! Who closes a day counts the lines of the days up to it, in the same transaction. There are two desks: one has the even days, one the odd.
//!
//! - *A job is taken once*, and only if it was put; what was put and acknowledged is taken or still there.
//! - *A taker that was told of its jobs has taken these*, on that day; one that was told it failed has taken none.
//! - *A closed day is closed*: at no moment, then or later, are its lines others than were counted.
//! - *Nothing stays behind*: once all has healed, those that skip what is locked come to every job.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Ended, Record};

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Puts a job in.
    Put {
        /// Nobody else puts it.
        job: u64,
    },
    /// Takes the first jobs that nobody has locked.
    Take {
        /// Nobody else is it.
        taker: u64,
    },
    /// Closes the day.
    Close,
    /// Counts the lines of all closed days, now or a while ago.
    Look,
}

/// What it was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The job is in.
    Put,
    /// On that day, these.
    Taken {
        /// An even one at the first desk, an odd one at the second.
        day: u64,
        /// None: there was nothing.
        jobs: BTreeSet<u64>,
    },
    /// Closed.
    Closed(Closing),
    /// All closings, and what was counted of each this time.
    Seen(Vec<(Closing, u64)>),
}

/// A day that is over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Closing {
    /// Which.
    pub day: u64,
    /// Lines of it and of the days before at its desk.
    pub lines: u64,
}

/// A job that was taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Line {
    /// Which.
    pub job: u64,
    /// By whom.
    pub taker: u64,
    /// When.
    pub day: u64,
}

/// Everything, once all has ended and no worker finds anything any more.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Books {
    /// Jobs that are left.
    pub jobs: BTreeSet<u64>,
    /// All lines.
    pub lines: Vec<Line>,
    /// All closings.
    pub closings: BTreeSet<Closing>,
}

/// Judges.
///
/// # Errors
/// What is broken.
pub fn check(history: &[Record<Op, Answer>], books: &Books) -> Result<(), String> {
    let mut taken = BTreeMap::new();
    for line in &books.lines {
        if let Some(other) = taken.insert(line.job, *line) {
            return Err(format!("job {} was taken twice: {other:?}, {line:?}", line.job));
        }
    }
    if let Some(job) = books.jobs.iter().find(|job| taken.contains_key(job)) {
        return Err(format!("job {job} was taken, and is still there"));
    }
    if let Some(job) = books.jobs.first() {
        return Err(format!("no worker comes to job {job}, which nobody has"));
    }
    for closing in &books.closings {
        is_closed(*closing, count(&books.lines, closing.day))?;
    }
    check_jobs(history, &taken)?;
    history.iter().try_for_each(|record| check_answer(record, books))
}

fn check_jobs(history: &[Record<Op, Answer>], taken: &BTreeMap<u64, Line>) -> Result<(), String> {
    let mut possible = BTreeSet::new();
    for record in history {
        let Op::Put { job } = record.op else { continue };
        match record.ended {
            Ended::Ok(_) if !taken.contains_key(&job) => {
                return Err(format!("job {job} was put in, and is lost"));
            }
            Ended::Ok(_) | Ended::Unknown => drop(possible.insert(job)),
            Ended::Fail => {}
        }
    }
    match taken.keys().find(|job| !possible.contains(job)) {
        Some(job) => Err(format!("job {job} was taken, and nobody has put it in")),
        None => Ok(()),
    }
}

fn check_answer(record: &Record<Op, Answer>, books: &Books) -> Result<(), String> {
    let lines_of = |taker: u64| books.lines.iter().filter(move |line| line.taker == taker);
    match (record.op, &record.ended) {
        (Op::Take { taker }, Ended::Ok(Answer::Taken { day, jobs })) => {
            let found: BTreeSet<u64> = lines_of(taker).map(|line| line.job).collect();
            if found != *jobs {
                return Err(format!("taker {taker} was told of {jobs:?} and has {found:?}"));
            }
            match lines_of(taker).find(|line| line.day != *day) {
                Some(line) => Err(format!("taker {taker} was shown day {day} and has {line:?}")),
                None => Ok(()),
            }
        }
        (Op::Take { taker }, Ended::Fail) => match lines_of(taker).next() {
            Some(line) => Err(format!("taker {taker} has failed and has {line:?}")),
            None => Ok(()),
        },
        (Op::Close, Ended::Ok(Answer::Closed(closing))) if !books.closings.contains(closing) => {
            Err(format!("{closing:?} was acknowledged, and is lost"))
        }
        (Op::Look, Ended::Ok(Answer::Seen(seen))) => {
            seen.iter().try_for_each(|(closing, lines)| is_closed(*closing, *lines))
        }
        (Op::Put { .. } | Op::Take { .. } | Op::Close | Op::Look, _) => Ok(()),
    }
}

fn count(lines: &[Line], day: u64) -> u64 {
    let counts = |line: &&Line| line.day <= day && line.day % 2 == day % 2;
    lines.iter().filter(counts).count() as u64
}

fn is_closed(closing: Closing, lines: u64) -> Result<(), String> {
    let Closing { day, lines: counted } = closing;
    if lines == counted {
        return Ok(());
    }
    Err(format!("day {day} was closed with {counted} lines up to it, and has {lines}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(op: Op, ended: Ended<Answer>) -> Record<Op, Answer> {
        Record { client: 1, asked: 1, heard: 2, op, ended }
    }

    fn put(job: u64) -> Record<Op, Answer> {
        record(Op::Put { job }, Ended::Ok(Answer::Put))
    }

    fn take(taker: u64, day: u64, jobs: &[u64]) -> Record<Op, Answer> {
        let jobs = jobs.iter().copied().collect();
        record(Op::Take { taker }, Ended::Ok(Answer::Taken { day, jobs }))
    }

    fn line(job: u64, taker: u64, day: u64) -> Line {
        Line { job, taker, day }
    }

    fn books(lines: &[Line]) -> Books {
        Books { lines: lines.to_vec(), ..Books::default() }
    }

    #[track_caller]
    fn refused(history: &[Record<Op, Answer>], books: &Books, why: &str) {
        let error = check(history, books).expect_err(why);
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn what_was_taken_once_is_right() {
        let unknown = record(Op::Take { taker: 9 }, Ended::Unknown);
        let history =
            [put(1), put(2), put(3), take(7, 0, &[1, 2]), take(8, 0, &[]), unknown.clone()];
        let mut right = books(&[line(1, 7, 0), line(2, 7, 0), line(3, 9, 1)]);
        right.closings = [Closing { day: 0, lines: 2 }, Closing { day: 1, lines: 1 }].into();
        check(&history, &right).expect("all is in order");
    }

    #[test]
    fn what_was_taken_twice_or_lost_or_made_up_is_not() {
        refused(&[put(1)], &books(&[line(1, 7, 0), line(1, 8, 0)]), "taken twice");
        refused(&[put(1)], &books(&[]), "lost");
        refused(&[], &books(&[line(1, 7, 0)]), "nobody has put it in");
        let failed = record(Op::Put { job: 1 }, Ended::Fail);
        refused(&[failed], &books(&[line(1, 7, 0)]), "nobody has put it in");
        let left = Books { jobs: [1].into(), ..Books::default() };
        refused(&[put(1)], &left, "no worker comes to job 1");
        let both = Books { jobs: [1].into(), ..books(&[line(1, 7, 0)]) };
        refused(&[put(1)], &both, "still there");
    }

    #[test]
    fn a_taker_has_what_it_was_told() {
        let one = books(&[line(1, 7, 0)]);
        refused(&[put(1), take(7, 0, &[])], &one, "was told of {} and has {1}");
        refused(&[put(1), take(7, 1, &[1])], &one, "was shown day 1");
        let failed = record(Op::Take { taker: 7 }, Ended::Fail);
        refused(&[put(1), failed], &one, "has failed");
    }

    #[test]
    fn a_closed_day_is_closed() {
        let closing = Closing { day: 0, lines: 0 };
        let mut late = books(&[line(1, 7, 0)]);
        late.closings = [closing].into();
        refused(&[put(1)], &late, "closed with 0 lines up to it, and has 1");
        let seen = record(Op::Look, Ended::Ok(Answer::Seen(vec![(closing, 1)])));
        refused(&[seen], &books(&[]), "closed with 0 lines up to it, and has 1");
        let closed = record(Op::Close, Ended::Ok(Answer::Closed(closing)));
        refused(&[closed], &books(&[]), "lost");
    }
}
