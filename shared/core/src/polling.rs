//! When to look again at something that RDS is working on: by how long the same kind of step took before.
//!
//! A snapshot, a restore or a copy is waited for by looking, and every look costs four state transitions. Without a
//! history the pauses are an eighth of the step's age. With one, nobody looks until shortly before the step can be
//! expected to end; from then on looks are close together, and when it is overdue they grow apart again. No pause is
//! longer than it could be without a history, so that whatever is noticed between two looks is noticed as early as
//! before. The history is advice: nothing depends on it being there, or right.
//!
//! It lives in the state table, one item for each step of a database and one for each step of databases alike
//! ([`Step::own_key`], [`Step::alike_key`]). An item has [`SLOTS`] slots; an operation's sample goes into the slot that
//! its id says. Writing it again changes nothing, and many operations can write at once without a condition: the worst
//! that can happen is that one sample takes another's place.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{DatabaseId, OperationId, Region};

/// Samples that an item has room for.
pub const SLOTS: usize = 8;

/// How many of them are looked at: the newest.
const NEWEST: usize = 5;

/// Age from which a sample says nothing any more.
pub const STALE: SignedDuration = SignedDuration::from_hours(24 * 120);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepKind {
    /// A snapshot, from asking for it until it is available.
    Snapshot,
    /// A restore into an instance, from asking for it until it is available.
    Restore,
    /// A copy in another Region, from asking for it until it is available; the wait for a slot counts.
    Copy,
}

impl StepKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::Copy => "copy",
        }
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshots",
            Self::Restore => "restores",
            Self::Copy => "copies",
        }
    }
}

/// A step of one database: what its duration is remembered under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// What is waited for.
    pub kind: StepKind,
    /// The Region in which it happens; of a copy the destination.
    pub region: Region,
    /// The database; absent where it is not known.
    #[serde(default)]
    pub database: Option<DatabaseId>,
    /// Such as `postgres`.
    pub engine: String,
    /// Allocated storage, GiB; of Aurora it says nothing, so that all of its clusters are alike.
    pub size_gb: i32,
}

impl Step {
    /// Key of the item with what this step of this database took before.
    pub fn own_key(&self) -> Option<String> {
        let database = self.database.as_ref()?;
        Some(format!("{}#{database}", self.prefix()?))
    }

    /// Key of the item with what this step of databases of this engine and about this size took before.
    pub fn alike_key(&self) -> Option<String> {
        // A database's name begins with a letter: the two kinds of key cannot meet.
        Some(format!("{}#{}GiB", self.prefix()?, self.sizes().0))
    }

    /// `None` for what is no engine's name: nothing is remembered of it.
    fn prefix(&self) -> Option<String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_name = !self.engine.is_empty() && self.engine.len() <= 64 && self.engine.chars().all(plain);
        is_name.then(|| format!("durations#{}@{}#{}", self.kind.as_str(), self.region, self.engine))
    }

    /// From and to, GiB: sizes double from one class to the next.
    fn sizes(&self) -> (u32, u32) {
        let size = u32::try_from(self.size_gb).unwrap_or(0).max(1);
        let from = 1_u32 << size.ilog2();
        (from, from.saturating_mul(2).saturating_sub(1))
    }

    fn alike(&self) -> String {
        let (from, to) = self.sizes();
        if self.engine.starts_with("aurora") {
            return format!("{} clusters", self.engine);
        }
        format!("{} databases of {from} to {to} GiB", self.engine)
    }
}

/// A step that ended well, as a function tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Took {
    /// The step.
    pub step: Step,
    /// From its beginning until it was first seen done: the true end lies up to one pause earlier.
    pub duration_seconds: u32,
}

impl Took {
    /// What was waited for from `started_at` until `now`.
    pub fn new(step: Step, started_at: Timestamp, now: Timestamp) -> Self {
        let seconds = now.duration_since(started_at).as_secs().max(0);
        Self { step, duration_seconds: u32::try_from(seconds).unwrap_or(u32::MAX) }
    }

    /// The items that remember it.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        [self.step.own_key(), self.step.alike_key()].into_iter().flatten()
    }
}

/// One duration, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Whose step it was.
    pub operation: OperationId,
    /// When it was seen to have ended.
    pub at: Timestamp,
    /// How long it took.
    pub seconds: u32,
}

/// Attribute of an item that holds an operation's sample.
pub fn slot(operation: &OperationId) -> &'static str {
    const NAMES: [&str; SLOTS] = ["slot0", "slot1", "slot2", "slot3", "slot4", "slot5", "slot6", "slot7"];
    let last = operation.as_str().bytes().last().unwrap_or(b'0');
    let digit = (last as char).to_digit(16).unwrap_or(0) as usize;
    NAMES[digit % SLOTS]
}

/// An item of the state table with durations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Durations {
    #[serde(default)]
    slot0: Option<Sample>,
    #[serde(default)]
    slot1: Option<Sample>,
    #[serde(default)]
    slot2: Option<Sample>,
    #[serde(default)]
    slot3: Option<Sample>,
    #[serde(default)]
    slot4: Option<Sample>,
    #[serde(default)]
    slot5: Option<Sample>,
    #[serde(default)]
    slot6: Option<Sample>,
    #[serde(default)]
    slot7: Option<Sample>,
}

impl Durations {
    /// Value of the table's attribute `type` on such an item. It has neither `status` nor `startedAt`, so that no index
    /// holds it.
    pub const TYPE: &'static str = "durations";

    fn newest(&self, now: Timestamp) -> Vec<u32> {
        let slots = [
            &self.slot0,
            &self.slot1,
            &self.slot2,
            &self.slot3,
            &self.slot4,
            &self.slot5,
            &self.slot6,
            &self.slot7,
        ];
        let mut samples: Vec<&Sample> = slots
            .into_iter()
            .flatten()
            .filter(|sample| now.duration_since(sample.at) <= STALE && sample.at <= now)
            .collect();
        samples.sort_by_key(|sample| std::cmp::Reverse(sample.at));
        samples.into_iter().take(NEWEST).map(|sample| sample.seconds).collect()
    }
}

/// What a step took before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Earlier {
    /// How many durations this follows from; at least 1.
    pub count: u32,
    /// The shortest of them.
    pub least_seconds: u32,
    /// The median.
    pub expected_seconds: u32,
    /// The longest.
    pub most_seconds: u32,
    /// What they are of, for people: "5 earlier snapshots of orders".
    pub of: String,
}

/// What is known of a step: of the same database, or else of databases alike; `None` when nothing is.
pub fn earlier(
    step: &Step,
    own: Option<&Durations>,
    alike: Option<&Durations>,
    now: Timestamp,
) -> Option<Earlier> {
    let seconds =
        |item: Option<&Durations>| item.map(|item| item.newest(now)).filter(|list| !list.is_empty());
    let (mut seconds, whose) = match (seconds(own), &step.database) {
        (Some(seconds), Some(database)) => (seconds, database.to_string()),
        _ => (seconds(alike)?, step.alike()),
    };
    seconds.sort_unstable();
    let (least, most) = (*seconds.first()?, *seconds.last()?);
    let noun = if seconds.len() == 1 { step.kind.as_str() } else { step.kind.plural() };
    Some(Earlier {
        count: u32::try_from(seconds.len()).unwrap_or(u32::MAX),
        least_seconds: least,
        expected_seconds: *seconds.get(seconds.len() / 2)?,
        most_seconds: most,
        of: format!("{} earlier {noun} of {whose}", seconds.len()),
    })
}

/// Bounds of the pauses between looks at one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Seconds, at least.
    pub least: i64,
    /// Seconds, at most: with a history no more than without.
    pub most: i64,
    /// When the step is given up, from its beginning.
    pub timeout: SignedDuration,
}

/// A pause before the next look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Seconds.
    pub seconds: u32,
    /// Why, where it follows from a history; for people.
    pub why: Option<String>,
}

/// When to look again at a step of this age. `percent` is RDS's own progress (0 to 100); it often jumps from 0 to 100,
/// so that it only moves what the history says.
pub fn next_look(schedule: Schedule, age: SignedDuration, percent: i32, earlier: Option<&Earlier>) -> Pause {
    let Schedule { least, most, timeout } = schedule;
    let age = age.as_secs().max(0);
    let by_age = (age / 8).clamp(least, most);
    // Giving up is not put off by a pause.
    let left = (timeout.as_secs() - age + 1).max(least);
    let pause = earlier.map_or(by_age, |earlier| by_history(least, most, age, percent, earlier));
    Pause {
        seconds: u32::try_from(pause.clamp(least, most).min(left)).unwrap_or(u32::MAX),
        why: earlier.map(|earlier| format!("expected {} s from {}", earlier.expected_seconds, earlier.of)),
    }
}

fn by_history(least: i64, most: i64, age: i64, percent: i32, earlier: &Earlier) -> i64 {
    let (soonest, expected, latest) = (
        i64::from(earlier.least_seconds),
        i64::from(earlier.expected_seconds),
        i64::from(earlier.most_seconds),
    );
    // Between looks around the end: a sixteenth, which is half of what the age alone would give.
    let close = (expected / 16).max(least);
    let foreseen = if (1..100).contains(&percent) { Some(age * 100 / i64::from(percent)) } else { None };
    // A step that is further than the others were can end earlier than they did.
    let begins = foreseen.map_or(soonest, |foreseen| foreseen.min(soonest)) - close;
    if age + least <= begins {
        // In equal parts, none of them longer than allowed.
        let (left, most) = (begins - age, most.max(1));
        let parts = (left + most - 1) / most;
        return (left + parts - 1) / parts;
    }
    if age > latest {
        // Overdue: by far, if its own progress says so.
        let overdue = (age - latest) / 4;
        return overdue.max(foreseen.map_or(0, |foreseen| (foreseen - age) / 4)).min(age / 8).max(close);
    }
    // Where earlier ones differed much, the age says as much as they do.
    ((latest - soonest) / 4).min(age / 8).max(close)
}

#[cfg(test)]
#[path = "polling_tests.rs"]
mod tests;
