//! Where an experiment and each of its steps stand.

use std::mem::discriminant;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::chaos::put_back::Step;
use crate::chaos::world::Change;

/// How often a failover back is tried at most, where it is not known whether the last one was made.
const MOST_FAILOVERS: u32 = 3;
/// The longest that a call can be under way: its function's timeout.
const LONGEST_CALL: SignedDuration = SignedDuration::from_secs(60);
/// How long RDS and Aurora leave a database stopped before they start it (RDS User Guide, "Stopping an Amazon RDS DB
/// instance temporarily"; Aurora User Guide, "Stopping and starting an Amazon Aurora DB cluster").
const STAYS_STOPPED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Where an experiment stands. Kebab-case in the table's `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Faults are being injected.
    Injecting,
    /// They are in.
    Observing,
    /// They are being put back.
    RollingBack,
    /// Everything is put back; the steady state is waited for.
    Recovering,
    /// Something could not be put back: a person was called. The watchdog tries again.
    Stuck,
    /// It is over.
    Ended,
}

impl Phase {
    /// The word in the table's `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Injecting => "injecting",
            Self::Observing => "observing",
            Self::RollingBack => "rolling-back",
            Self::Recovering => "recovering",
            Self::Stuck => "stuck",
            Self::Ended => "ended",
        }
    }

    /// Every phase.
    pub const ALL: [Self; 6] =
        [Self::Injecting, Self::Observing, Self::RollingBack, Self::Recovering, Self::Stuck, Self::Ended];
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatus {
    /// Nothing was done.
    Planned,
    /// Its undo is written down, and the change may have been made.
    Begun,
    /// The change was made.
    Made,
    /// The world is as recorded.
    PutBack,
    /// It cannot be put back by a program.
    Stuck,
}

/// Why the faults are taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "detail")]
pub enum Reason {
    /// The time is over, as planned.
    Completed,
    /// The emergency stop.
    EmergencyStop(String),
    /// Somebody ended this experiment.
    Cancelled(String),
    /// A stop condition did not pass.
    StopCondition(String),
    /// Fewer are healthy than must be.
    TooFewHealthy(String),
    /// A change was refused.
    InjectionFailed(String),
    /// A runner died, and nobody knows whether its last change was made.
    RunnerLost,
    /// It took longer than it may.
    TooLong,
}

impl Reason {
    /// For people.
    pub fn words(&self) -> String {
        match self {
            Self::Completed => "their time was over".to_owned(),
            Self::EmergencyStop(why) => format!("of the emergency stop, {why}"),
            Self::Cancelled(why) => format!("it was cancelled by {why}"),
            Self::StopCondition(why) => format!("a stop condition did not hold: {why}"),
            Self::TooFewHealthy(why) => format!("too few were healthy: {why}"),
            Self::InjectionFailed(why) => format!("a change was refused: {why}"),
            Self::RunnerLost => "its runner was lost".to_owned(),
            Self::TooLong => "it took longer than it may".to_owned(),
        }
    }
}

/// A step, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The step.
    pub step: Step,
    /// What became of it.
    pub status: StepStatus,
    /// When its undo was written down, just before the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<Timestamp>,
    /// When it was seen put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_back_at: Option<Timestamp>,
    /// How often something was done to put it back.
    #[serde(default)]
    pub attempts: u32,
    /// When something was last done to put it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Timestamp>,
    /// What was last done to put it back: not always its undo, because somebody may have changed the resource meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Change>,
    /// When it was known what came of the last call for it, the change's or an undo's. Without it since the call, whoever
    /// made it has died, and it may still be under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Timestamp>,
    /// When the last call for it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<Timestamp>,
    /// What is in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Entry {
    /// When AWS starts what it stopped by itself; `None` when it is nothing of the kind, or is put back.
    pub fn starts_by_itself_at(&self) -> Option<Timestamp> {
        let stops = matches!(self.step.change, Change::StopDbInstance | Change::StopDbCluster);
        let stopped = self.begun_at.filter(|_| stops && self.status != StepStatus::PutBack)?;
        Some(stopped + STAYS_STOPPED)
    }

    /// The commands that put it back by hand: what could not be done, and its undo where that is something else.
    pub(super) fn commands(&self) -> Vec<String> {
        let Step { resource, undo, watched, .. } = &self.step;
        let another = |undo: &&Change| {
            self.asked.as_ref().is_none_or(|asked| discriminant(asked) != discriminant(*undo))
        };
        let changes = self.asked.iter().chain(undo.as_ref().filter(another));
        let commands: Vec<String> = changes.map(|change| change.command(resource)).collect();
        if commands.is_empty() {
            vec![format!("# look at {watched} until it is as recorded")]
        } else {
            commands
        }
    }

    /// When the last call for it was made, the change's or an undo's.
    pub(super) fn called_at(&self) -> Option<Timestamp> {
        self.begun_at.max(self.last_attempt)
    }

    /// From when on "as it was" can be believed once it has settled: not before the last call had its answer. One without
    /// an answer is over when its function must be, or when somebody else has taken the journal, whose lease was longer.
    pub(super) fn quiet_since(&self, taken_at: Timestamp) -> Option<Timestamp> {
        let called = self.called_at()?;
        match self.answered_at {
            Some(answered) if answered >= called => Some(answered),
            _ if taken_at > called => Some(taken_at),
            _ => Some(called + LONGEST_CALL),
        }
    }

    /// Whether the change may not be asked for again, because each time is another outage, and the last time may have
    /// worked: AWS shows a failover late.
    pub(super) fn must_not_repeat(&self, change: &Change) -> bool {
        let failover = matches!(
            change,
            Change::RebootDbInstance { force_failover: true } | Change::FailoverDbCluster { .. }
        );
        let accepted = self.attempts > 0 && self.accepted_at.is_some_and(|at| Some(at) >= self.last_attempt);
        failover && (self.attempts >= MOST_FAILOVERS || accepted)
    }
}
