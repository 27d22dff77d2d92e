//! What keeps operations apart: locks with leases, the circuit breaker, the emergency stop.
//!
//! All three live in the state table, so that every invocation in every execution sees the same. The decisions
//! here are pure; the table's conditional writes make them binding.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{DrError, ErrorName, Result};
use crate::ids::{ExecutionArn, OperationId};
use crate::operation::Kind;

/// The lock of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    /// The table's key, `lock#<resource>`.
    pub operation_id: String,
    /// `lock`, so that locks can be listed by the index.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is locked.
    pub resource_id: String,
    /// Who holds it.
    pub owner: OperationId,
    /// The owner's execution, to ask whether it still runs.
    pub owner_execution: ExecutionArn,
    /// Since when; part of an index.
    pub started_at: Timestamp,
    /// Until when, unless it is renewed.
    pub lease_until: Timestamp,
    /// Counts the writes.
    pub version: u64,
}

impl Lock {
    /// The table's key of a resource's lock.
    pub fn key(resource: &str) -> String {
        format!("lock#{resource}")
    }
}

/// Whether the holder's execution is still running, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HolderState {
    /// Step Functions says that it runs.
    Running,
    /// Step Functions says that it ended, or that there is no such execution any more.
    Ended,
    /// It could not be asked: not a reason to take a lock away.
    Unknown,
    /// It is an experiment that is not over: what it changed may not be as it was. Its lock outlasts every lease.
    Unfinished,
}

/// What to do about a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockDecision {
    /// Nobody holds it.
    Take,
    /// We hold it already: renew it.
    Renew,
    /// Whoever held it is gone.
    TakeOver,
}

/// Decides whether `me` may hold the lock.
///
/// # Errors
/// [`ErrorName::OperationInProgress`] naming the holder and the end of its lease.
pub fn decide_lock(
    existing: Option<&Lock>,
    me: &OperationId,
    holder: HolderState,
    now: Timestamp,
) -> Result<LockDecision> {
    match existing {
        None => Ok(LockDecision::Take),
        Some(lock) if lock.owner == *me => Ok(LockDecision::Renew),
        Some(lock)
            if holder == HolderState::Ended
                || (lock.lease_until <= now && holder != HolderState::Unfinished) =>
        {
            Ok(LockDecision::TakeOver)
        }
        Some(lock) => Err(DrError::new(
            ErrorName::OperationInProgress,
            format!(
                "locking {} for {me}: {} holds it since {}, with a lease until {}",
                lock.resource_id, lock.owner, lock.started_at, lock.lease_until
            ),
        )),
    }
}

/// The emergency stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmergencyStop {
    /// The table's key, [`EmergencyStop::KEY`].
    pub operation_id: String,
    /// Whether it is in force.
    pub in_force: bool,
    /// Who set or lifted it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// When it was last put in force; kept when it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_at: Option<Timestamp>,
    /// Counts the writes.
    pub version: u64,
}

impl EmergencyStop {
    /// The table's key.
    pub const KEY: &'static str = "emergency-stop";

    /// Whether it ends what began at that time: it is in force, or it was put in force since. What waited meanwhile does
    /// not go on because it is lifted.
    pub fn covers(&self, begun: Timestamp) -> bool {
        self.in_force || self.set_at.is_some_and(|at| at >= begun)
    }
}

/// Refuses to begin anything while the emergency stop is in force.
///
/// # Errors
/// [`ErrorName::EmergencyStopActive`] with who set it, when and why.
pub fn check_emergency_stop(stop: Option<&EmergencyStop>) -> Result<()> {
    match stop {
        Some(stop) if stop.in_force => Err(DrError::new(
            ErrorName::EmergencyStopActive,
            format!(
                "beginning an operation: {} set the emergency stop at {} ({})",
                stop.by, stop.at, stop.reason
            ),
        )),
        _ => Ok(()),
    }
}

/// When the breaker opens and when it lets a trial through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures within the window that open it; at least 1.
    pub failures: u32,
    /// The window.
    pub window: SignedDuration,
    /// How long it stays open before a trial.
    pub reset: SignedDuration,
}

/// The circuit breaker of one kind of operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// The table's key, `breaker#<kind>`.
    pub operation_id: String,
    /// `breaker`, so that breakers can be listed by the index.
    #[serde(rename = "type")]
    pub item_type: String,
    /// `closed`, `open` or `half-open`, for people and for the index.
    pub status: BreakerStatus,
    /// The failures in the window, oldest first.
    pub failures: Vec<Timestamp>,
    /// When it was opened last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Timestamp>,
    /// The operation that tries whether things work again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<OperationId>,
    /// When that trial began: after another reset time a lost trial is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_at: Option<Timestamp>,
    /// Successes since it was made.
    pub successes: u64,
    /// Counts the writes.
    pub version: u64,
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerStatus {
    /// Operations begin.
    Closed,
    /// Operations are refused.
    Open,
    /// One operation is tried.
    HalfOpen,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(kind: Kind) -> Self {
        Self {
            operation_id: Self::key(kind),
            item_type: "breaker".to_owned(),
            status: BreakerStatus::Closed,
            failures: Vec::new(),
            opened_at: None,
            trial: None,
            trial_at: None,
            successes: 0,
            version: 0,
        }
    }

    /// The table's key of a kind's breaker.
    pub fn key(kind: Kind) -> String {
        format!("breaker#{kind}")
    }

    /// Decides whether `me` may begin. `Some` is the breaker to write: `me` is now its trial.
    ///
    /// # Errors
    /// [`ErrorName::CircuitBreakerOpen`] with the time from which a trial is let through.
    pub fn admit(
        &self,
        me: &OperationId,
        now: Timestamp,
        settings: &BreakerSettings,
    ) -> Result<Option<Self>> {
        let trial_again = |since: Option<Timestamp>| since.is_none_or(|since| now >= since + settings.reset);
        let refuse = |since: Option<Timestamp>, why: &str| {
            let until = since.map_or(now, |since| since + settings.reset);
            Err(DrError::new(
                ErrorName::CircuitBreakerOpen,
                format!(
                    "beginning {me}: {} is {why} after {} failures; the next trial is possible at {until}",
                    self.operation_id,
                    self.failures.len(),
                ),
            ))
        };
        match self.status {
            BreakerStatus::Closed => Ok(None),
            BreakerStatus::Open if trial_again(self.opened_at) => Ok(Some(self.with_trial(me, now))),
            BreakerStatus::Open => refuse(self.opened_at, "open"),
            BreakerStatus::HalfOpen if self.trial.as_ref() == Some(me) => Ok(None),
            BreakerStatus::HalfOpen if trial_again(self.trial_at) => Ok(Some(self.with_trial(me, now))),
            BreakerStatus::HalfOpen => refuse(self.trial_at, "trying one operation"),
        }
    }

    fn with_trial(&self, me: &OperationId, now: Timestamp) -> Self {
        Self { status: BreakerStatus::HalfOpen, trial: Some(me.clone()), trial_at: Some(now), ..self.clone() }
    }

    /// The breaker after `me` succeeded.
    #[must_use]
    pub fn after_success(&self, me: &OperationId) -> Self {
        let mut next = self.clone();
        next.successes += 1;
        if next.status == BreakerStatus::HalfOpen && next.trial.as_ref() == Some(me) {
            next.status = BreakerStatus::Closed;
            next.failures.clear();
            next.opened_at = None;
            next.trial = None;
            next.trial_at = None;
        }
        next
    }

    /// The breaker after `me` failed with `error`. Refusals and faults of the input say nothing about the health
    /// of AWS or of Lifeboat; neither does a backup that was examined and found bad. They do not count, but they
    /// end a trial, so that the next operation can be one.
    #[must_use]
    pub fn after_failure(
        &self,
        me: &OperationId,
        error: ErrorName,
        now: Timestamp,
        settings: &BreakerSettings,
    ) -> Self {
        let mut next = self.clone();
        let was_trial = next.status == BreakerStatus::HalfOpen && next.trial.as_ref() == Some(me);
        if !counts(error) {
            if was_trial {
                next.status = BreakerStatus::Open;
                next.trial = None;
                next.trial_at = None;
            }
            return next;
        }
        next.failures.retain(|at| *at + settings.window > now);
        next.failures.push(now);
        // An item has 400 KB: what is beyond the threshold adds nothing.
        let most = usize::try_from(settings.failures.max(1)).unwrap_or(usize::MAX).saturating_mul(2);
        if next.failures.len() > most {
            next.failures.drain(..next.failures.len() - most);
        }
        let threshold = usize::try_from(settings.failures.max(1)).unwrap_or(usize::MAX);
        if was_trial || (next.status == BreakerStatus::Closed && next.failures.len() >= threshold) {
            next.status = BreakerStatus::Open;
            next.opened_at = Some(now);
            next.trial = None;
            next.trial_at = None;
        }
        next
    }
}

/// Whether a failure tells that operations of this kind do not work at the moment.
fn counts(error: ErrorName) -> bool {
    use ErrorName as E;
    !matches!(
        error,
        E::InvalidInput
            | E::RegionUnknown
            | E::OperationInProgress
            | E::IllegalTransition
            | E::OperationMissing
            | E::CircuitBreakerOpen
            | E::EmergencyStopActive
            | E::DatabaseMissing
            | E::DatabaseAmbiguous
            | E::DatabaseUnavailable
            | E::EngineUnsupported
            | E::SnapshotMissing
            | E::SnapshotNotOurs
            | E::BackupUnproven
            | E::FrameMissing
            | E::FleetEmpty
            | E::FleetIncomplete
            | E::RecoveryPointMissing
            | E::ApprovalRequired
            | E::RollbackMissing
            | E::TargetMissing
            | E::TargetNotAllowed
            | E::FaultImpossible
            | E::BlastRadiusExceeded
            | E::PreCheckFailed
            | E::FreezeWindow
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures: 3,
        window: SignedDuration::from_mins(60),
        reset: SignedDuration::from_mins(30),
    };

    fn op(n: u8) -> OperationId {
        OperationId::parse(format!("backup-{n:016x}")).unwrap()
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + minutes * 60).unwrap()
    }

    fn failing(times: &[i64]) -> Breaker {
        times.iter().fold(Breaker::new(Kind::Backup), |breaker, minute| {
            breaker.after_failure(&op(9), ErrorName::AwsFault, at(*minute), &SETTINGS)
        })
    }

    #[test]
    fn the_breaker_opens_at_the_threshold_within_the_window_only() {
        for (times, status) in [
            (vec![], BreakerStatus::Closed),
            (vec![0, 1], BreakerStatus::Closed),
            (vec![0, 1, 2], BreakerStatus::Open),
            (vec![0, 30, 59], BreakerStatus::Open),
            (vec![0, 30, 60], BreakerStatus::Closed),
            (vec![0, 61, 122, 183], BreakerStatus::Closed),
        ] {
            assert_eq!(failing(&times).status, status, "{times:?}");
        }
    }

    #[test]
    fn refusals_and_findings_do_not_open_it() {
        use ErrorName as E;
        let of_backups = [E::InvalidInput, E::OperationInProgress, E::BackupUnproven];
        // Everything that is said before an experiment touches anything.
        let of_experiments = [
            E::InvalidInput,
            E::OperationInProgress,
            E::EmergencyStopActive,
            E::ApprovalRequired,
            E::RollbackMissing,
            E::TargetMissing,
            E::TargetNotAllowed,
            E::FaultImpossible,
            E::BlastRadiusExceeded,
            E::PreCheckFailed,
            E::FreezeWindow,
            E::DatabaseMissing,
            E::EngineUnsupported,
        ];
        for (kind, refusals) in [(Kind::Backup, &of_backups[..]), (Kind::Chaos, &of_experiments[..])] {
            let mut breaker = Breaker::new(kind);
            for error in refusals {
                for _ in 0..5 {
                    breaker = breaker.after_failure(&op(1), *error, at(0), &SETTINGS);
                }
                assert_eq!(breaker, Breaker::new(kind), "{error:?}");
            }
        }
        let stuck = (0..3).fold(Breaker::new(Kind::Chaos), |breaker, _| {
            breaker.after_failure(&op(1), E::RollbackFailed, at(0), &SETTINGS)
        });
        assert_eq!(stuck.status, BreakerStatus::Open, "what breaks and is not put back counts");
    }

    #[test]
    fn an_open_breaker_lets_one_trial_through_after_its_reset_time() {
        let open = failing(&[0, 1, 2]);
        assert_eq!(open.admit(&op(1), at(31), &SETTINGS).unwrap_err().name(), ErrorName::CircuitBreakerOpen);
        let half = open.admit(&op(1), at(32), &SETTINGS).unwrap().unwrap();
        assert_eq!(half.status, BreakerStatus::HalfOpen);
        // The same operation asks again (a retried call), another one has to wait.
        assert_eq!(half.admit(&op(1), at(33), &SETTINGS).unwrap(), None);
        assert!(half.admit(&op(2), at(33), &SETTINGS).is_err());
        // A lost trial is replaced after another reset time.
        assert_eq!(half.admit(&op(2), at(62), &SETTINGS).unwrap().unwrap().trial, Some(op(2)));
    }

    #[test]
    fn a_trial_decides_and_only_the_trial() {
        let half = failing(&[0, 1, 2]).admit(&op(1), at(40), &SETTINGS).unwrap().unwrap();
        assert_eq!(half.after_success(&op(2)).status, BreakerStatus::HalfOpen);
        let closed = half.after_success(&op(1));
        assert_eq!((closed.status, closed.failures.len()), (BreakerStatus::Closed, 0));
        let open = half.after_failure(&op(1), ErrorName::AwsFault, at(41), &SETTINGS);
        assert_eq!((open.status, open.opened_at), (BreakerStatus::Open, Some(at(41))));
        let refused = half.after_failure(&op(1), ErrorName::InvalidInput, at(41), &SETTINGS);
        assert_eq!(refused.status, BreakerStatus::Open);
        assert!(refused.admit(&op(3), at(41), &SETTINGS).unwrap().is_some());
    }

    fn lock(owner: u8, until: i64) -> Lock {
        Lock {
            operation_id: Lock::key("db"),
            kind: "lock".into(),
            resource_id: "db".into(),
            owner: op(owner),
            owner_execution: ExecutionArn::parse("arn:aws:states:us-east-1:1:execution:m:x").unwrap(),
            started_at: at(0),
            lease_until: at(until),
            version: 1,
        }
    }

    #[test]
    fn a_lock_is_taken_over_only_from_who_is_gone() {
        use HolderState::{Ended, Running, Unfinished, Unknown};
        for (existing, holder, expected) in [
            (None, Unknown, Ok(LockDecision::Take)),
            (Some(lock(1, 60)), Running, Ok(LockDecision::Renew)),
            (Some(lock(1, -5)), Ended, Ok(LockDecision::Renew)),
            (Some(lock(2, 60)), Running, Err(())),
            (Some(lock(2, 60)), Unknown, Err(())),
            (Some(lock(2, 60)), Ended, Ok(LockDecision::TakeOver)),
            (Some(lock(2, 1)), Unknown, Err(())),
            (Some(lock(2, 0)), Unknown, Ok(LockDecision::TakeOver)),
            (Some(lock(2, 0)), Running, Ok(LockDecision::TakeOver)),
            (Some(lock(1, 0)), Unfinished, Ok(LockDecision::Renew)),
            (Some(lock(2, 60)), Unfinished, Err(())),
            (Some(lock(2, 0)), Unfinished, Err(())),
        ] {
            let got = decide_lock(existing.as_ref(), &op(1), holder, at(0));
            match expected {
                Ok(decision) => assert_eq!(got.unwrap(), decision, "{existing:?} {holder:?}"),
                Err(()) => {
                    assert_eq!(got.unwrap_err().name(), ErrorName::OperationInProgress, "{existing:?}");
                }
            }
        }
    }

    #[test]
    fn a_lifted_stop_does_not_stop() {
        let stop = |in_force| EmergencyStop {
            operation_id: EmergencyStop::KEY.into(),
            in_force,
            by: "ada".into(),
            reason: "drill".into(),
            at: at(0),
            set_at: None,
            version: 1,
        };
        assert!(check_emergency_stop(None).is_ok());
        assert!(check_emergency_stop(Some(&stop(false))).is_ok());
        assert_eq!(
            check_emergency_stop(Some(&stop(true))).unwrap_err().name(),
            ErrorName::EmergencyStopActive
        );
    }
}
