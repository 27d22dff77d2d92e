//! Choosing a recovery point to prove: one by its name, a random old one, or the newest copy that nobody has proven yet.
//!
//! A Region may hold any number of snapshots, so they are looked at one after the other, and only the best one so far is
//! kept. Nothing here calls AWS, and nothing is inferred from a name.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{DrError, ErrorName, Result};
use crate::ids::{DatabaseId, OperationId, SnapshotId, hex};
use crate::labels::{self, Proof, Role};
use crate::observed::{DatabaseKind, SnapshotFacts};

/// Which snapshot to prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum RecoverySelector {
    /// A random one of those that are proven.
    Random(Random),
    /// The newest copy that was not proven in its own Region yet.
    UnprovenCopy(UnprovenCopy),
}

/// See [`RecoverySelector::Random`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Random {
    /// What the choice follows from, 1 to 64 characters: the same seed among the same snapshots gives the same one.
    /// The operation's id when absent. It is recorded with the choice.
    pub seed: Option<String>,
    /// Of this database only.
    pub database: Option<DatabaseId>,
    /// Of those whose data is at least this old, days. 0 to 3,650.
    pub older_than_days: u32,
}

/// See [`RecoverySelector::UnprovenCopy`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UnprovenCopy {
    /// Of this database only.
    pub database: Option<DatabaseId>,
}

impl RecoverySelector {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ErrorName::InvalidInput`] naming the field.
    pub fn check(&self) -> Result<()> {
        let fault = |text: &str| {
            Err(DrError::new(ErrorName::InvalidInput, format!("reading the proof request: {text}")))
        };
        match self {
            Self::Random(random) => {
                if random.older_than_days > 3_650 {
                    return fault("`selector.random.olderThanDays` must be 0 to 3650");
                }
                if random.seed.as_ref().is_some_and(|seed| !(1..=64).contains(&seed.chars().count())) {
                    return fault("`selector.random.seed` needs 1 to 64 characters");
                }
                Ok(())
            }
            Self::UnprovenCopy(_) => Ok(()),
        }
    }

    /// The only database whose snapshots are looked at.
    pub fn database(&self) -> Option<&DatabaseId> {
        match self {
            Self::Random(random) => random.database.as_ref(),
            Self::UnprovenCopy(copy) => copy.database.as_ref(),
        }
    }
}

/// A snapshot that was chosen, and what a proof of it needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Chosen {
    /// The snapshot.
    pub snapshot_id: SnapshotId,
    /// Its ARN.
    pub snapshot_arn: String,
    /// The backup that it is of, or that it is a copy of; `None` for a snapshot that is not ours. Only ours are
    /// labelled.
    pub owner: Option<OperationId>,
    /// Whether it is a copy.
    pub copy: bool,
    /// The database that it was taken of.
    pub database: String,
    /// What that is.
    #[serde(default)]
    pub database_kind: DatabaseKind,
    /// When its data was taken.
    pub taken_at: Option<Timestamp>,
}

impl Chosen {
    /// What a proof of this snapshot needs to know.
    pub fn of(facts: &SnapshotFacts) -> Self {
        let role = |role: Role| labels::has(&facts.tags, labels::ROLE, role.as_str());
        let ours = role(Role::Backup) || role(Role::Copy);
        let owner = facts.tags.get(labels::OPERATION_ID).filter(|_| ours);
        Self {
            snapshot_id: facts.id.clone(),
            snapshot_arn: facts.arn.clone(),
            owner: owner.and_then(|id| OperationId::parse(id.clone()).ok()),
            copy: role(Role::Copy),
            database: facts.database.clone(),
            database_kind: facts.database_kind,
            taken_at: facts.taken_at(),
        }
    }
}

/// How a snapshot was chosen, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// The snapshot.
    pub chosen: Chosen,
    /// The backup whose frame it can be compared with.
    pub frame_operation_id: Option<OperationId>,
    /// The first proof that found it proven.
    pub earlier_operation_id: Option<OperationId>,
    /// What the choice follows from.
    pub seed: String,
    /// Snapshots that were looked at.
    pub seen: u64,
    /// Those among them that could be chosen.
    pub eligible: u64,
}

/// A search that is under way: what was seen so far, and the best of it. Small, whatever was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Search {
    /// Snapshots that were looked at.
    pub seen: u64,
    /// Those that could be chosen.
    pub eligible: u64,
    /// Copies of ours that were seen, proven or not.
    pub copies: u64,
    /// Proven snapshots of ours that were seen, of any age.
    pub proven: u64,
    /// The best one, with what ranks it: the lower text wins.
    pub best: Option<Ranked>,
}

/// A snapshot with its rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ranked {
    /// The lower text wins.
    pub rank: String,
    /// The snapshot.
    pub chosen: Chosen,
}

/// What a search looks for.
#[derive(Debug, Clone, Copy)]
pub struct Aim<'a> {
    /// Which snapshot.
    pub selector: &'a RecoverySelector,
    /// What a random choice follows from.
    pub seed: &'a str,
    /// When the search began.
    pub now: Timestamp,
}

impl Search {
    /// Looks at one more snapshot.
    pub fn look(&mut self, aim: &Aim<'_>, facts: &SnapshotFacts) {
        self.seen += 1;
        let chosen = Chosen::of(facts);
        if chosen.owner.is_some() && chosen.copy {
            self.copies += 1;
        }
        if chosen.owner.is_some() && labels::has(&facts.tags, labels::PROOF, Proof::Proven.as_str()) {
            self.proven += 1;
        }
        let Some(rank) = rank(aim, facts, &chosen) else { return };
        self.eligible += 1;
        if self.best.as_ref().is_none_or(|best| rank < best.rank) {
            self.best = Some(Ranked { rank, chosen });
        }
    }

    /// Ends the search: the choice, or that there is nothing to do.
    ///
    /// # Errors
    /// [`ErrorName::RecoveryPointMissing`] when there is nothing to recover from: no proven snapshot, or no copy at all.
    /// Nothing is chosen, without an error, when there are some and none is due: all copies are proven, or all proven
    /// snapshots are younger than was asked for, as in an installation's first days.
    pub fn finish(self, aim: &Aim<'_>) -> Result<Option<Chosen>> {
        if let Some(best) = self.best {
            return Ok(Some(best.chosen));
        }
        let what = match aim.selector {
            RecoverySelector::UnprovenCopy(_) if self.copies > 0 => return Ok(None),
            RecoverySelector::UnprovenCopy(_) => "the newest copy that is not proven: there is no copy",
            RecoverySelector::Random(_) if self.proven > 0 => return Ok(None),
            RecoverySelector::Random(_) => "a proven snapshot: there is none",
        };
        Err(DrError::new(
            ErrorName::RecoveryPointMissing,
            format!("choosing {what} among {} snapshots", self.seen),
        ))
    }
}

/// What a snapshot is ranked by; `None` for one that is not to be chosen.
fn rank(aim: &Aim<'_>, facts: &SnapshotFacts, chosen: &Chosen) -> Option<String> {
    chosen.owner.as_ref()?;
    let wanted = aim.selector.database().is_none_or(|database| database.as_str() == facts.database);
    if !wanted || facts.status != "available" {
        return None;
    }
    let proof = |proof: Proof| labels::has(&facts.tags, labels::PROOF, proof.as_str());
    match aim.selector {
        RecoverySelector::Random(random) => {
            let age = SignedDuration::from_hours(24 * i64::from(random.older_than_days));
            let old = chosen.taken_at.is_some_and(|taken| aim.now.duration_since(taken) >= age);
            if !old || !proof(Proof::Proven) {
                return None;
            }
            // The lowest hash of seed and ARN: uniform, and the same in whatever order the pages come.
            Some(hex(&Sha256::new()
                .chain_update(aim.seed)
                .chain_update([0])
                .chain_update(&facts.arn)
                .finalize()))
        }
        RecoverySelector::UnprovenCopy(_) => {
            let here = labels::has(&facts.tags, labels::PROVEN_IN, facts.region.as_str());
            if !chosen.copy || here || proof(Proof::Unproven) {
                return None;
            }
            // The newest first; of two of one moment, the first by ARN.
            let age = i64::MAX - chosen.taken_at.map_or(0, Timestamp::as_second).max(0);
            Some(format!("{age:019} {}", facts.arn))
        }
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
