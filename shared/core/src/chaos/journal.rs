//! The journal of an experiment: what was changed, what is still to be put back, and the next thing to do.
//!
//! It is one item of the state table, and the only memory that an experiment has. Every change is preceded by a write
//! that says what undoes it, so that anybody who holds the lease can go on: [`Journal::decide`] asks for one thing at a
//! time and never depends on who did the last one.

mod entry;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use entry::{Entry, Phase, Reason, StepStatus};

use super::plan::ExperimentPlan;
use super::probe::{Finding, Verdict, first_fault};
use super::put_back::{PutBack, Step};
use super::selection::healthy;
use super::world::{Change, Resource, State};
use crate::control::EmergencyStop;
use crate::error::{DrError, ErrorName, Result};
use crate::ids::{ExecutionArn, OperationId};

/// How long a runner's word counts. Longer than the runner's function can run (its timeout is 60 s): whoever takes over
/// after that knows that no call of the last one is still under way.
pub const LEASE: SignedDuration = SignedDuration::from_secs(120);
/// How long is waited between two attempts to put the same thing back.
const BETWEEN_ATTEMPTS: SignedDuration = SignedDuration::from_secs(20);
/// How often the same thing is tried to be put back before a person is called.
const MOST_ATTEMPTS: u32 = 8;
/// The longest wait between two looks, seconds.
const LOOK_SECONDS: u32 = 10;
/// How long is looked every second after the steady state was lost: the recovery time is as exact as the looks are.
const LOOK_CLOSELY: SignedDuration = SignedDuration::from_mins(3);
/// How often a person is called about the same thing.
const BETWEEN_PAGES: SignedDuration = SignedDuration::from_hours(1);
/// How long the journal of an ended experiment stays in the table.
const KEPT: SignedDuration = SignedDuration::from_hours(400 * 24);

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// The table's key, `journal#<operation>`.
    pub operation_id: String,
    /// `journal`, so that journals can be listed by the index.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it stands; part of an index.
    pub status: Phase,
    /// The operation that it belongs to.
    pub owner: OperationId,
    /// Its execution.
    pub owner_execution: ExecutionArn,
    /// When the first change could be made; part of an index.
    pub started_at: Timestamp,
    /// The plan.
    pub plan: ExperimentPlan,
    /// Its steps.
    pub entries: Vec<Entry>,
    /// Who works on it: an execution, or a watchdog with its Region.
    pub holder: String,
    /// Since when.
    pub taken_at: Timestamp,
    /// Until when nobody else may.
    pub lease_until: Timestamp,
    /// When it must be ended at the latest.
    pub deadline: Timestamp,
    /// When all faults were in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injected_at: Option<Timestamp>,
    /// Why they are taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Since when they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_back_at: Option<Timestamp>,
    /// When everything was put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_back_at: Option<Timestamp>,
    /// When the steady state was first seen after everything was put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_at: Option<Timestamp>,
    /// When the steady state was first seen lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbed_at: Option<Timestamp>,
    /// When it was last seen to be back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_at: Option<Timestamp>,
    /// When a person was last called about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paged_at: Option<Timestamp>,
    /// Whose approvals it began with.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub approved_by: BTreeSet<String>,
    /// The steady state before.
    #[serde(default)]
    pub before: Vec<Finding>,
    /// What did not pass while the faults were in: the first finding of each probe.
    #[serde(default)]
    pub during: Vec<Finding>,
    /// Steady state and post-checks at the end.
    #[serde(default)]
    pub after: Vec<Finding>,
    /// Counts the writes.
    pub version: u64,
    /// When DynamoDB may delete the item, in seconds since 1970 (TTL). Only ended ones have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// What was seen of the world.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The emergency stop.
    pub stop: Option<&'a EmergencyStop>,
    /// What the watched resources are now. What is not in it could not be looked at.
    pub states: &'a BTreeMap<Resource, Option<State>>,
    /// The stop conditions. Asked while faults are in.
    pub conditions: &'a [Finding],
    /// The steady state. Asked while faults are in, and while it recovers.
    pub steady: &'a [Finding],
    /// The post-checks. Asked while it recovers.
    pub checks: &'a [Finding],
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Write this journal, and come back at once.
    Write(Box<Journal>),
    /// Write this journal, then make this change; then write what [`Journal::made`] or [`Journal::refused`] says.
    Change {
        /// What is written before.
        before: Box<Journal>,
        /// The entry that it is about.
        entry: usize,
        /// The change.
        change: Change,
        /// To what.
        resource: Resource,
    },
    /// Come back later.
    Wait {
        /// Seconds: 1 to 10.
        seconds: u32,
        /// What for.
        why: String,
    },
    /// It is over, or a person must help. Nothing is to be done.
    Over,
}

impl Journal {
    /// The table's key of an operation's journal.
    pub fn key(operation: &OperationId) -> String {
        format!("journal#{operation}")
    }

    /// A journal in which nothing has happened yet.
    pub fn new(
        owner: &OperationId,
        execution: &ExecutionArn,
        plan: ExperimentPlan,
        before: Vec<Finding>,
        now: Timestamp,
    ) -> Self {
        let planned = |step: &Step| Entry {
            step: step.clone(),
            status: StepStatus::Planned,
            begun_at: None,
            put_back_at: None,
            attempts: 0,
            last_attempt: None,
            asked: None,
            answered_at: None,
            accepted_at: None,
            trouble: None,
        };
        let longest = SignedDuration::from_secs(i64::from(plan.worst_case_seconds));
        Self {
            operation_id: Self::key(owner),
            kind: "journal".to_owned(),
            status: Phase::Injecting,
            owner: owner.clone(),
            owner_execution: execution.clone(),
            started_at: now,
            entries: plan.steps.iter().map(planned).collect(),
            deadline: now + longest,
            plan,
            holder: execution.to_string(),
            taken_at: now,
            lease_until: now + LEASE,
            injected_at: None,
            reason: None,
            rolling_back_at: None,
            put_back_at: None,
            recovered_at: None,
            disturbed_at: None,
            restored_at: None,
            paged_at: None,
            approved_by: BTreeSet::new(),
            before,
            during: Vec::new(),
            after: Vec::new(),
            version: 1,
            expires_at: None,
        }
    }

    /// Whether anything is still to be done about it.
    pub fn is_open(&self) -> bool {
        self.status != Phase::Ended
    }

    /// What the stack in the Region of its resources keeps of a journal that begins here: everything may have been changed,
    /// and nobody works on it once it must be over. Whoever watches there then puts back what is not as it was.
    #[must_use]
    pub fn dead_mans(&self, version: u64) -> Self {
        let mut copy = Self { version, ..self.clone() };
        for entry in &mut copy.entries {
            (entry.status, entry.begun_at) = (StepStatus::Begun, Some(self.started_at));
        }
        let undo = self.entries.iter().map(|entry| entry.step.undo_seconds).max().unwrap_or(0);
        copy.lease_until = self.deadline + SignedDuration::from_secs(i64::from(undo)) + LEASE;
        copy
    }

    /// Whether it should be over by now: the faults are out at its deadline, and the rest has its bounds.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        let undo = self.entries.iter().map(|entry| entry.step.undo_seconds).max().unwrap_or(0);
        let rest = i64::from(undo) + i64::from(self.plan.recovery_seconds);
        self.is_open() && self.deadline + SignedDuration::from_secs(rest) < now
    }

    /// Whether whoever works on it has not been heard of for too long.
    pub fn is_abandoned(&self, now: Timestamp) -> bool {
        self.is_open() && self.lease_until <= now
    }

    /// Gives the journal to `me`, or leaves it with me. What a lost runner had begun is rolled back.
    ///
    /// # Errors
    /// [`ErrorName::OperationInProgress`] while somebody else's lease lasts.
    pub fn take(&self, me: &str, now: Timestamp) -> Result<Self> {
        if self.holder != me && self.lease_until > now {
            return Err(DrError::new(
                ErrorName::OperationInProgress,
                format!(
                    "taking {}: {} works on it, until {}",
                    self.operation_id, self.holder, self.lease_until
                ),
            ));
        }
        let mut next = self.written(now);
        let taken_over = self.holder != me;
        if taken_over {
            me.clone_into(&mut next.holder);
            next.taken_at = now;
        }
        if taken_over && matches!(next.status, Phase::Injecting | Phase::Observing) {
            next.roll_back(Reason::RunnerLost, now);
        }
        if next.status == Phase::Stuck {
            next.status = Phase::RollingBack;
            for entry in &mut next.entries {
                if entry.status == StepStatus::Stuck {
                    entry.status = StepStatus::Begun;
                    // A failover is not tried for ever: each is an outage.
                    if !entry.step.undo.as_ref().is_some_and(|undo| entry.must_not_repeat(undo)) {
                        entry.attempts = 0;
                        entry.last_attempt = None;
                    }
                }
            }
        }
        Ok(next)
    }

    /// Ends the experiment early, whoever works on it; `None` when its faults are coming out already.
    pub fn cancel(&self, why: &str, now: Timestamp) -> Option<Self> {
        if !matches!(self.status, Phase::Injecting | Phase::Observing) {
            return None;
        }
        let mut next = Self { version: self.version + 1, ..self.clone() };
        next.roll_back(Reason::Cancelled(why.to_owned()), now);
        Some(next)
    }

    /// The journal with a note that a person is called now about what is stuck; `None` when one was within the hour.
    pub fn page(&self, now: Timestamp) -> Option<Self> {
        let lately = self.paged_at.is_some_and(|at| at + BETWEEN_PAGES > now);
        if self.status != Phase::Stuck || lately {
            return None;
        }
        Some(Self { version: self.version + 1, paged_at: Some(now), ..self.clone() })
    }

    /// Decides the next thing.
    pub fn decide(&self, sight: &Sight<'_>, now: Timestamp) -> Decision {
        match self.status {
            Phase::Injecting => self.inject(sight, now),
            Phase::Observing => self.observe(sight, now),
            Phase::RollingBack => self.put_back(sight, now),
            Phase::Recovering => self.recover(sight, now),
            Phase::Stuck | Phase::Ended => Decision::Over,
        }
    }

    /// The journal after the change of [`Decision::Change`] was made.
    #[must_use]
    pub fn made(&self, entry: usize, now: Timestamp) -> Self {
        let mut next = self.written(now);
        if let Some(entry) = next.entries.get_mut(entry) {
            if entry.status == StepStatus::Begun && self.status == Phase::Injecting {
                entry.status = StepStatus::Made;
            }
            entry.trouble = None;
            (entry.answered_at, entry.accepted_at) = (Some(now), Some(now));
        }
        next
    }

    /// The journal after the change of [`Decision::Change`] was refused, or its answer was lost. `error` is what people
    /// read.
    #[must_use]
    pub fn refused(&self, entry: usize, error: &str, now: Timestamp) -> Self {
        let mut next = self.written(now);
        if let Some(entry) = next.entries.get_mut(entry) {
            entry.trouble = Some(error.to_owned());
            entry.answered_at = Some(now);
        }
        if next.status == Phase::Injecting {
            next.roll_back(Reason::InjectionFailed(error.to_owned()), now);
        }
        next
    }

    /// The commands with which a person puts back what is not.
    pub fn commands(&self) -> Vec<String> {
        let open = |entry: &&Entry| !matches!(entry.status, StepStatus::Planned | StepStatus::PutBack);
        self.entries.iter().rev().filter(open).flat_map(Entry::commands).collect()
    }

    /// The same, one version on, with a new lease.
    fn written(&self, now: Timestamp) -> Self {
        Self { version: self.version + 1, lease_until: now + LEASE, ..self.clone() }
    }

    fn roll_back(&mut self, reason: Reason, now: Timestamp) {
        self.status = Phase::RollingBack;
        self.reason.get_or_insert(reason);
        self.rolling_back_at.get_or_insert(now);
    }

    fn rolled_back(&self, reason: Reason, now: Timestamp) -> Decision {
        let mut next = self.written(now);
        next.roll_back(reason, now);
        Decision::Write(Box::new(next))
    }

    /// Why the faults have to come out now.
    fn ends_early(&self, sight: &Sight<'_>, now: Timestamp) -> Option<Reason> {
        if let Some(stop) = sight.stop.filter(|stop| stop.covers(self.started_at)) {
            let word = if stop.in_force { "set" } else { "set meanwhile, and lifted" };
            return Some(Reason::EmergencyStop(format!(
                "{word} by {} at {}: {}",
                stop.by, stop.at, stop.reason
            )));
        }
        if now >= self.deadline {
            return Some(Reason::TooLong);
        }
        for guard in &self.plan.guards {
            // What could not be looked at is not counted, and the rest then decides: an experiment does not go on blind.
            let count = guard
                .pool
                .iter()
                .map(|resource| healthy(sight.states.get(resource).and_then(Option::as_ref)));
            if let Some(why) = guard.broken_by(count.fold(0, u32::saturating_add)) {
                return Some(Reason::TooFewHealthy(why));
            }
        }
        first_fault(sight.conditions).map(Reason::StopCondition)
    }

    fn inject(&self, sight: &Sight<'_>, now: Timestamp) -> Decision {
        if let Some(reason) = self.ends_early(sight, now) {
            return self.rolled_back(reason, now);
        }
        if self.entries.iter().any(|entry| entry.status == StepStatus::Begun) {
            return self.rolled_back(Reason::RunnerLost, now);
        }
        let mut next = self.written(now);
        let Some(index) = self.entries.iter().position(|entry| entry.status == StepStatus::Planned) else {
            next.status = Phase::Observing;
            next.injected_at = Some(now);
            return Decision::Write(Box::new(next));
        };
        let Some(entry) = next.entries.get_mut(index) else { return Decision::Over };
        entry.status = StepStatus::Begun;
        entry.begun_at = Some(now);
        let (change, resource) = (entry.step.change.clone(), entry.step.resource.clone());
        Decision::Change { before: Box::new(next), entry: index, change, resource }
    }

    fn observe(&self, sight: &Sight<'_>, now: Timestamp) -> Decision {
        if let Some(reason) = self.ends_early(sight, now) {
            return self.rolled_back(reason, now);
        }
        let lasts = SignedDuration::from_secs(i64::from(self.plan.duration_seconds));
        let end = self.injected_at.map_or(now, |since| since + lasts);
        if now >= end {
            return self.rolled_back(Reason::Completed, now);
        }
        let news: Vec<&Finding> = sight
            .steady
            .iter()
            .filter(|finding| finding.verdict != Verdict::Passed)
            .filter(|finding| !self.during.iter().any(|known| known.probe == finding.probe))
            .collect();
        let holds = Self::holds(sight);
        let turned = self.turned(holds, now);
        if !news.is_empty() || turned.is_some() || now + LEASE / 2 >= self.lease_until {
            let mut next = turned.unwrap_or_else(|| self.written(now));
            next.during.extend(news.into_iter().cloned());
            return Decision::Write(Box::new(next));
        }
        let left = u32::try_from(end.duration_since(now).as_secs()).unwrap_or(u32::MAX).max(1);
        let seconds = left.min(self.look_again(holds, now));
        Decision::Wait { seconds, why: format!("the faults stay until {end}") }
    }

    /// Whether the steady state holds. A database that is not available is no steady state, whatever is asked besides.
    fn holds(sight: &Sight<'_>) -> bool {
        let away =
            |state: &Option<State>| matches!(state, Some(State::Database(_))) && healthy(state.as_ref()) == 0;
        sight.steady.iter().all(|finding| finding.verdict == Verdict::Passed)
            && !sight.states.values().any(away)
    }

    /// The journal with the moment in which the steady state was lost, or was back; `None` when neither is news.
    fn turned(&self, holds: bool, now: Timestamp) -> Option<Self> {
        let lost = self.disturbed_at.is_some() && self.restored_at.is_none();
        if holds != lost {
            return None;
        }
        let mut next = self.written(now);
        next.disturbed_at.get_or_insert(now);
        next.restored_at = holds.then_some(now);
        Some(next)
    }

    /// When to look again, seconds: soon while the steady state is lost.
    fn look_again(&self, holds: bool, now: Timestamp) -> u32 {
        let fresh = [self.disturbed_at, self.put_back_at].iter().flatten().any(|&at| at + LOOK_CLOSELY > now);
        if !holds && fresh { 1 } else { LOOK_SECONDS }
    }

    fn put_back(&self, sight: &Sight<'_>, now: Timestamp) -> Decision {
        let settling = SignedDuration::from_secs(i64::from(self.plan.settling_seconds));
        let (mut waiting, mut soon) = (None, false);
        // The last one first; what has to wait does not keep the others from being put back.
        for (index, entry) in self.entries.iter().enumerate().rev() {
            if matches!(entry.status, StepStatus::Planned | StepStatus::PutBack | StepStatus::Stuck) {
                continue;
            }
            let step = &entry.step;
            let Some(state) = sight.states.get(&step.watched) else {
                waiting.get_or_insert_with(|| format!("{} could not be looked at", step.watched));
                continue;
            };
            match step.put_back(state.as_ref()) {
                PutBack::AsRecorded => {
                    if entry.quiet_since(self.taken_at).is_none_or(|since| since + settling <= now) {
                        return self.settle(index, StepStatus::PutBack, None, now);
                    }
                    soon = true;
                    waiting.get_or_insert_with(|| format!("whether {} stays as it is", step.watched));
                }
                PutBack::Do(change) => {
                    if entry.last_attempt.is_some_and(|since| since + BETWEEN_ATTEMPTS > now) {
                        waiting
                            .get_or_insert_with(|| format!("what the last attempt does to {}", step.watched));
                        continue;
                    }
                    if entry.must_not_repeat(&change) {
                        // It is waited for as long as it may take; then a person looks.
                        waiting.get_or_insert_with(|| format!("{} to show its failover", step.watched));
                        continue;
                    }
                    if entry.attempts >= MOST_ATTEMPTS {
                        let trouble = entry.trouble.clone();
                        let trouble =
                            trouble.unwrap_or_else(|| format!("{MOST_ATTEMPTS} attempts changed nothing"));
                        return self.settle(index, StepStatus::Stuck, Some(trouble), now);
                    }
                    let mut next = self.written(now);
                    if let Some(entry) = next.entries.get_mut(index) {
                        entry.attempts += 1;
                        entry.last_attempt = Some(now);
                        entry.asked = Some(change.clone());
                    }
                    return Decision::Change {
                        before: Box::new(next),
                        entry: index,
                        change,
                        resource: step.resource.clone(),
                    };
                }
                PutBack::Wait(why) => {
                    waiting.get_or_insert(why);
                }
                PutBack::Impossible(why) => return self.settle(index, StepStatus::Stuck, Some(why), now),
            }
        }
        let Some(why) = waiting else {
            let mut next = self.written(now);
            let stuck = self.entries.iter().any(|entry| entry.status == StepStatus::Stuck);
            next.status = if stuck { Phase::Stuck } else { Phase::Recovering };
            if !stuck {
                next.put_back_at.get_or_insert(now);
            }
            return Decision::Write(Box::new(next));
        };
        let patience = self.entries.iter().map(|entry| entry.step.undo_seconds).max().unwrap_or(0);
        let patience = SignedDuration::from_secs(i64::from(patience)) + 2 * settling;
        let attempts = self.entries.iter().filter_map(|entry| entry.last_attempt);
        let since = attempts.chain(self.rolling_back_at).chain([self.taken_at]).max();
        let late = since.is_some_and(|since| since + patience <= now);
        let open = |entry: &Entry| matches!(entry.status, StepStatus::Begun | StepStatus::Made);
        match self.entries.iter().rposition(open) {
            Some(index) if late => {
                self.settle(index, StepStatus::Stuck, Some(format!("waiting too long: {why}")), now)
            }
            _ if now + LEASE / 2 >= self.lease_until => Decision::Write(Box::new(self.written(now))),
            _ if soon => Decision::Wait { seconds: self.plan.settling_seconds.clamp(1, LOOK_SECONDS), why },
            _ => Decision::Wait { seconds: LOOK_SECONDS, why },
        }
    }

    fn settle(&self, index: usize, status: StepStatus, trouble: Option<String>, now: Timestamp) -> Decision {
        let mut next = self.written(now);
        if let Some(entry) = next.entries.get_mut(index) {
            entry.status = status;
            entry.trouble = trouble;
            entry.put_back_at = (status == StepStatus::PutBack).then_some(now);
        }
        Decision::Write(Box::new(next))
    }

    fn recover(&self, sight: &Sight<'_>, now: Timestamp) -> Decision {
        let passed = |findings: &[Finding]| findings.iter().all(|finding| finding.verdict == Verdict::Passed);
        let steady = passed(sight.steady);
        let turned = self.turned(steady, now);
        if turned.is_some() || (steady && self.recovered_at.is_none()) {
            let mut next = turned.unwrap_or_else(|| self.written(now));
            next.recovered_at = next.recovered_at.or(steady.then_some(now));
            return Decision::Write(Box::new(next));
        }
        let patience = SignedDuration::from_secs(i64::from(self.plan.recovery_seconds));
        let late = self.put_back_at.is_none_or(|since| since + patience <= now);
        if late || (steady && passed(sight.checks)) {
            let mut next = self.written(now);
            next.status = Phase::Ended;
            next.expires_at = Some((now + KEPT).as_second());
            next.after = sight.steady.iter().chain(sight.checks).cloned().collect();
            return Decision::Write(Box::new(next));
        }
        if now + LEASE / 2 >= self.lease_until {
            return Decision::Write(Box::new(self.written(now)));
        }
        let why = first_fault(sight.steady).or_else(|| first_fault(sight.checks));
        let seconds = self.look_again(steady, now);
        Decision::Wait { seconds, why: why.unwrap_or_else(|| "the checks at the end".to_owned()) }
    }
}
