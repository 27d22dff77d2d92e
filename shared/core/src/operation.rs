//! Operations: what the state table records, and which event is allowed in which status.
//!
//! The table is total: every pair of status and event has an answer, and whatever is not listed is an
//! [`ErrorName::IllegalTransition`]. A finished operation is never changed.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{DrError, ErrorName, Result};
use crate::failure::Failure;
use crate::ids::{ExecutionArn, OperationId};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A backup with its proof and its copies.
    Backup,
    /// The proof of one snapshot.
    Proof,
    /// A run of backups over a fleet of databases.
    Fleet,
    /// A chaos experiment.
    Chaos,
}

impl Kind {
    /// The word used in ids, in the table's `type` and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Proof => "proof",
            Self::Fleet => "fleet",
            Self::Chaos => "chaos",
        }
    }
}

impl Kind {
    /// Whether operations of this kind exclude each other by a lock: backups by their database, runs by their fleet,
    /// experiments by the name that their user gave them.
    pub const fn holds_lock(self) -> bool {
        matches!(self, Self::Backup | Self::Fleet | Self::Chaos)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Begun and not finished.
    Running,
    /// Finished, everything as asked.
    Succeeded,
    /// Finished: the backup is proven, but at least one Region has no copy of it; or some databases of a fleet's run
    /// could not be backed up, no more than are tolerated; or an experiment was put back, but did not go as planned.
    Partial,
    /// Finished with an error.
    Failed,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Running, Self::Succeeded, Self::Partial, Self::Failed];

    /// The word used in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// It begins.
    Begin,
    /// It learns its database and locks it.
    Lock,
    /// It reports where it is; its lock's lease is renewed.
    Progress,
    /// It records something that later steps or people need.
    Checkpoint,
    /// It ends, everything as asked.
    Succeed,
    /// It ends with some Regions missing.
    SucceedPartially,
    /// It ends with an error.
    Fail,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 7] = [
        Self::Begin,
        Self::Lock,
        Self::Progress,
        Self::Checkpoint,
        Self::Succeed,
        Self::SucceedPartially,
        Self::Fail,
    ];
}

/// What an event means for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The operation is created with this status.
    Create(Status),
    /// The operation goes on to this status.
    To(Status),
    /// The event was already applied: a repeated call. Nothing is written.
    AlreadyDone(Status),
}

/// The transition table. `None` is an operation that has no item yet.
///
/// # Errors
/// [`ErrorName::OperationMissing`] when there is no operation and the event is neither a beginning nor a failure;
/// [`ErrorName::IllegalTransition`] for everything else that is not listed.
pub fn transition(operation: &OperationId, status: Option<Status>, event: Event) -> Result<Transition> {
    use Event as E;
    use Status as S;
    use Transition as T;
    match (status, event) {
        (None, E::Begin) => Ok(T::Create(S::Running)),
        // What fails before its beginning was recorded is recorded as failed: a refused operation leaves a trace.
        (None, E::Fail) => Ok(T::Create(S::Failed)),
        (None, _) => {
            Err(DrError::new(ErrorName::OperationMissing, format!("changing operation {operation}")))
        }

        (Some(S::Running), E::Begin) => Ok(T::AlreadyDone(S::Running)),
        (Some(S::Running), E::Lock | E::Progress | E::Checkpoint) => Ok(T::To(S::Running)),
        (Some(S::Running), E::Succeed) => Ok(T::To(S::Succeeded)),
        (Some(S::Running), E::SucceedPartially) => Ok(T::To(S::Partial)),
        (Some(S::Running), E::Fail) => Ok(T::To(S::Failed)),

        (Some(S::Succeeded), E::Succeed) => Ok(T::AlreadyDone(S::Succeeded)),
        (Some(S::Partial), E::SucceedPartially) => Ok(T::AlreadyDone(S::Partial)),
        (Some(S::Failed), E::Fail) => Ok(T::AlreadyDone(S::Failed)),

        (Some(status @ (S::Succeeded | S::Partial | S::Failed)), event) => Err(DrError::new(
            ErrorName::IllegalTransition,
            format!("applying {event:?} to operation {operation}, which has {status}"),
        )),
    }
}

/// An operation, as the state table holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// The table's key.
    pub operation_id: OperationId,
    /// What it does; part of two indexes.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Where it stands.
    pub status: Status,
    /// When its execution started; part of two indexes.
    pub started_at: Timestamp,
    /// What it is about: a database or a snapshot; part of an index. Absent until a selector is resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// When the item was written last.
    pub updated_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The execution that it stands for.
    pub execution: ExecutionArn,
    /// What was asked for, as it was given.
    pub request: Value,
    /// What was decided at the beginning: names, Regions, keys. Written before anything is created.
    #[serde(default)]
    pub plan: Value,
    /// The state that reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What the steps recorded, by name.
    #[serde(default)]
    pub checkpoints: BTreeMap<String, Value>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it failed, and what it left behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Counts the writes: every write asks for the version that it read.
    pub version: u64,
    /// When DynamoDB may delete the item, in seconds since 1970 (TTL). Only finished operations have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::ids::OperationId;

    fn id() -> OperationId {
        OperationId::parse("backup-0123456789abcdef").unwrap()
    }

    #[test]
    fn a_finished_operation_is_never_changed() {
        for status in [Status::Succeeded, Status::Partial, Status::Failed] {
            for event in Event::ALL {
                match transition(&id(), Some(status), event) {
                    Ok(Transition::AlreadyDone(same)) => assert_eq!(same, status),
                    Ok(other) => unreachable!("{status:?} {event:?} gave {other:?}"),
                    Err(error) => assert_eq!(error.name(), ErrorName::IllegalTransition),
                }
            }
        }
    }

    #[test]
    fn every_pair_of_status_and_event_has_the_answer_of_the_table() {
        use Event as E;
        use Status as S;
        let legal: &[(Option<S>, E, Transition)] = &[
            (None, E::Begin, Transition::Create(S::Running)),
            (None, E::Fail, Transition::Create(S::Failed)),
            (Some(S::Running), E::Begin, Transition::AlreadyDone(S::Running)),
            (Some(S::Running), E::Lock, Transition::To(S::Running)),
            (Some(S::Running), E::Progress, Transition::To(S::Running)),
            (Some(S::Running), E::Checkpoint, Transition::To(S::Running)),
            (Some(S::Running), E::Succeed, Transition::To(S::Succeeded)),
            (Some(S::Running), E::SucceedPartially, Transition::To(S::Partial)),
            (Some(S::Running), E::Fail, Transition::To(S::Failed)),
            (Some(S::Succeeded), E::Succeed, Transition::AlreadyDone(S::Succeeded)),
            (Some(S::Partial), E::SucceedPartially, Transition::AlreadyDone(S::Partial)),
            (Some(S::Failed), E::Fail, Transition::AlreadyDone(S::Failed)),
        ];
        for status in std::iter::once(None).chain(S::ALL.map(Some)) {
            for event in E::ALL {
                let expected = legal.iter().find(|(s, e, _)| *s == status && *e == event).map(|(_, _, t)| *t);
                match (transition(&id(), status, event), expected) {
                    (Ok(got), Some(expected)) => assert_eq!(got, expected, "{status:?} {event:?}"),
                    (Err(error), None) if status.is_none() => {
                        assert_eq!(error.name(), ErrorName::OperationMissing, "{event:?}");
                    }
                    (Err(error), None) => assert_eq!(error.name(), ErrorName::IllegalTransition, "{event:?}"),
                    (got, expected) => unreachable!("{status:?} {event:?}: {got:?} instead of {expected:?}"),
                }
            }
        }
    }
}
