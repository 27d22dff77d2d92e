//! The ledger of an experiment: whether a database still has all that it acknowledged.
//!
//! Each asking compares the last beat that was acknowledged, as the metadata bucket knows it, with what the database
//! has, and has it acknowledge one more. A beat counts as acknowledged only when it is written down, so a database may
//! have more than the record says, and never less unless it lost it. What is told is the end of the log: whatever was
//! committed before a beat that is there is there, too.
//!
//! A loss is written down for good before the next beat: beats that are counted anew would soon hide it.

use std::time::Duration;

use dr_core::ids::DatabaseId;
use dr_core::{DrError, ErrorName, Result};
use dr_database::ConnectionSettings;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::engine;
use crate::request::Ledger;
use crate::store::{Records, Store};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(4);
/// How long everything with the database may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// When the server gives a statement up that nobody waits for any more.
const STATEMENT: Duration = Duration::from_secs(10);

/// What was acknowledged last.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Acknowledged {
    beat: i64,
}

/// The first loss.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Loss {
    acknowledged: i64,
    found: Option<i64>,
}

impl Loss {
    /// Whether what was found is less than what was acknowledged.
    fn of(acknowledged: i64, found: Option<i64>) -> Option<Self> {
        (found.unwrap_or(0) < acknowledged).then_some(Self { acknowledged, found })
    }
}

/// The record of the last beat of a database that was acknowledged.
pub fn record(database: &DatabaseId) -> String {
    format!("ledger/{database}.json")
}

/// The record of the first loss of a database.
pub fn loss_record(database: &DatabaseId) -> String {
    format!("ledger/lost/{database}.json")
}

/// Asks the writer once, and writes the next beat; one that is only to be looked at is not written to.
///
/// # Errors
/// `ConnectionFailed` or `ConnectionLost` within 8 seconds when the database does not answer; `DatabaseUnavailable` when
/// it takes no writes; of the connection, the queries or the storage. A beat whose number could not be written down does
/// no harm.
pub async fn turn<S: Store>(
    records: &Records<'_, S>,
    database: &DatabaseId,
    writer: &ConnectionSettings,
    look_only: bool,
) -> Result<Ledger> {
    let (name, loss_name) = (record(database), loss_record(database));
    // Read before the database is asked: what others have acknowledged meanwhile is more, and no loss.
    let known = records.read::<Acknowledged>(&name).await?.map_or(0, |known| known.beat);
    let before = records.read::<Loss>(&loss_name).await?;
    let writer =
        ConnectionSettings { connect_timeout: CONNECT, statement_timeout: STATEMENT, ..writer.clone() };
    let asked = Asked { database, until: Instant::now() + PATIENCE };
    let found = asked.answer("last beat", engine::last_beat(&writer, records.operation())).await?;
    let noted = async |before: Option<Loss>, now: Option<Loss>| match (before, now) {
        (None, Some(loss)) => records.write_once(&loss_name, &loss).await.map(|()| Some(loss)),
        (before, _) => Ok(before),
    };
    let mut loss = noted(before, Loss::of(known, found)).await?;
    let beat = if look_only {
        known
    } else {
        let beat = asked.answer("next beat", engine::beat(&writer, records.operation())).await?.beat;
        // What was lost between the two answers shows in the number: each beat is one more than the last that is there.
        loss = noted(loss, Loss::of(known, Some(beat - 1).filter(|last| *last > 0))).await?;
        records.write(&name, &Acknowledged { beat }).await?;
        beat
    };
    let told = loss.unwrap_or(Loss { acknowledged: known, found });
    Ok(Ledger {
        intact: loss.is_none(),
        acknowledged: told.acknowledged,
        found: told.found,
        beat,
        database: database.clone(),
    })
}

/// A database that is asked until some moment.
struct Asked<'d> {
    database: &'d DatabaseId,
    until: Instant,
}

impl Asked<'_> {
    async fn answer<T>(&self, what: &str, asking: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout_at(self.until, asking).await.unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            let what = format!("asking `{}` for its {what}: no answer in {seconds} s", self.database);
            Err(DrError::new(ErrorName::ConnectionLost, what))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_what_was_acknowledged_is_a_loss_and_more_is_none() {
        for (acknowledged, found, lost) in [
            (0, None, false),
            (0, Some(1), false),
            (1, None, true),
            (5, Some(4), true),
            (5, Some(5), false),
            (5, Some(6), false),
            (5, Some(0), true),
        ] {
            assert_eq!(Loss::of(acknowledged, found).is_some(), lost, "{acknowledged} {found:?}");
        }
    }
}
