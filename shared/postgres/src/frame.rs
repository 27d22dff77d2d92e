//! The steps of framing a source: plan, horizon, units ([`crate::units`]), heartbeat ([`crate::heartbeat`]), and the
//! observation after the snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_core::proof::cut::cut_some;
use dr_core::proof::frame::{DatabaseActivity, FramePlan, Observation, Persistence, Visibility};
use dr_core::proof::visibility::SnapshotText;
use dr_core::{DrError, ErrorName, Result};
use jiff::{SignedDuration, Timestamp};

use crate::catalogue::activity::activity;
use crate::catalogue::fingerprint::fingerprint;
use crate::catalogue::sequences::sequences;
use crate::catalogue::server::{databases, large_objects, server_facts};
use crate::catalogue::tables::{check_readable, tables};
use crate::session::Session;
use dr_database::Access;
use dr_database::ConnectionSettings;

/// Version of the stored format, and of the digests in it: those of different versions cannot be compared. In version 1
/// a row was hashed as the binary form of its whole record.
pub const FORMAT: u32 = 2;
/// How long after a moment the counters tell everything that was committed before it.
pub const SETTLING: SignedDuration = SignedDuration::from_secs(12);
/// How long a replica may take to replay what the writer had written when the frame was planned.
const REPLAY_LIMIT: Duration = Duration::from_mins(1);

/// What a frame is made of.
#[derive(Debug, Clone)]
pub struct Source<'s> {
    /// Where rows are read: the writer, or a replica of it.
    pub reader: &'s ConnectionSettings,
    /// The writer, where `reader` is a replica: its counters bound what changes, and it gets the heartbeat.
    pub writer: Option<&'s ConnectionSettings>,
    /// The DB instance behind `reader`.
    pub instance: &'s str,
}

impl Source<'_> {
    fn writer(&self) -> &ConnectionSettings {
        self.writer.unwrap_or(self.reader)
    }
}

/// Looks at everything and cuts the work into units of about `unit_bytes` (usually
/// [`dr_core::proof::cut::UNIT_BYTES`]). Unlogged tables are listed and get no unit: a restore empties them.
///
/// Counters are read before anything else, so that every later change is above them.
///
/// # Errors
/// `PermissionMissing` naming what cannot be read in full; `DatabaseUnavailable` when a replica does not catch up
/// within a minute; of the connections and queries.
pub async fn plan(source: &Source<'_>, operation_id: &str, unit_bytes: u64) -> Result<FramePlan> {
    let mut plan = {
        let session = Session::open(source.reader, Access::ReadOnly).await?;
        let server = server_facts(&session).await?;
        FramePlan {
            format: FORMAT,
            operation_id: operation_id.to_owned(),
            instance: source.instance.to_owned(),
            server,
            schema: BTreeMap::new(),
            sequences: Vec::new(),
            activity: Vec::new(),
            tables: Vec::new(),
            units: Vec::new(),
            large_objects: BTreeMap::new(),
            state: None,
        }
    };
    let names = databases(&Session::open(source.writer(), Access::ReadOnly).await?).await?;
    plan.activity = activity_of(source.writer(), &names).await?;
    if source.writer.is_some() {
        catch_up(source).await?;
    }
    for name in names {
        let session = Session::open(&source.reader.for_database(&name), Access::ReadOnly).await?;
        check_readable(&session).await?;
        plan.tables.extend(tables(&session).await?);
        plan.schema.insert(name.clone(), fingerprint(&session).await?);
        plan.sequences.extend(sequences(&session).await?);
        let objects = large_objects(&session).await?;
        if objects > 0 {
            plan.large_objects.insert(name, objects);
        }
    }
    let kept = |index: usize| {
        plan.tables.get(index).is_some_and(|table| table.persistence == Persistence::Permanent)
    };
    plan.units = cut_some(&plan.tables, kept, unit_bytes, 0);
    Ok(plan)
}

async fn activity_of(settings: &ConnectionSettings, databases: &[String]) -> Result<Vec<DatabaseActivity>> {
    let mut all = Vec::new();
    for name in databases {
        all.push(activity(&Session::open(&settings.for_database(name), Access::ReadOnly).await?).await?);
    }
    Ok(all)
}

/// Waits until the replica has replayed what the writer had written: otherwise a change from before the counters were
/// read could be missing in what is read from the replica, and nothing would account for it.
async fn catch_up(source: &Source<'_>) -> Result<()> {
    let writer = Session::open(source.writer(), Access::ReadOnly).await?;
    let reader = Session::open(source.reader, Access::ReadOnly).await?;
    let position = writer.row("reading the writer's position", "SELECT pg_current_wal_insert_lsn()").await?;
    let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{}'::pg_lsn", position.text(0)?);
    let begun = tokio::time::Instant::now();
    loop {
        match reader.row("reading the replica's position", &sql).await?.optional(0) {
            Some("t") => return Ok(()),
            None => {
                let what = format!("framing from {}: it is no replica", source.reader.place());
                return Err(DrError::new(ErrorName::InvalidInput, what)
                    .with_remedy("Name a read replica in `frameFrom`, or leave it out."));
            }
            Some(_) if begun.elapsed() > REPLAY_LIMIT => {
                let what = format!("framing from {}: it lags behind the writer", source.reader.place());
                return Err(DrError::new(ErrorName::DatabaseUnavailable, what));
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(250)).await,
        }
    }
}

/// The visibility for the units that are read from now on. One for all databases: transaction ids are the server's.
///
/// # Errors
/// `FrameMissing` when a transaction has been open for so many others that rows cannot be told apart by it (see
/// [`dr_core::proof::visibility::BAND`]); of the connection or the query.
pub async fn horizon(settings: &ConnectionSettings) -> Result<Visibility> {
    let session = Session::open(settings, Access::ReadOnly).await?;
    let row = session.row("reading the current snapshot", "SELECT pg_current_snapshot()").await?;
    usable(row.text(0)?, settings)
}

/// The visibility below the `xmin` of a snapshot, unless it is too far behind the snapshot's own present.
fn usable(snapshot: &str, settings: &ConnectionSettings) -> Result<Visibility> {
    let visibility = Visibility::below_xmin_of(snapshot);
    let present = SnapshotText::parse(snapshot).map(|snapshot| snapshot.xmax);
    match visibility.horizon().zip(present) {
        Some((horizon, present)) if !horizon.reaches(present) => {
            let what = format!(
                "framing {}: a transaction has been open since {}, for {} others",
                settings.place(),
                horizon.full_xid(),
                present - horizon.full_xid()
            );
            Err(DrError::new(ErrorName::FrameMissing, what).with_remedy(
                "End it (look in pg_stat_activity and pg_prepared_xacts), and start the backup again.",
            ))
        }
        _ => Ok(visibility),
    }
}

/// What came of asking for an observation.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// The counters may not tell everything yet: ask again after so many seconds.
    TooEarly {
        /// Seconds, at least 1.
        seconds: u64,
    },
    /// It is made.
    Done(Box<Observation>),
}

/// Looks at the source again, for bounds of what changed between `framed_at` (when the frame's counters were read)
/// and `snapshot_taken`. `writer` is the writer even where the frame came from a replica.
///
/// # Errors
/// Of the connections and queries.
pub async fn observe(
    writer: &ConnectionSettings,
    operation_id: &str,
    framed_at: Timestamp,
    snapshot_taken: Timestamp,
) -> Result<Observed> {
    let session = Session::open(writer, Access::ReadOnly).await?;
    let clock = server_facts(&session).await?.clock;
    let left = SETTLING - clock.duration_since(snapshot_taken);
    if left > SignedDuration::ZERO {
        let seconds = u64::try_from(left.as_secs()).unwrap_or(0) + 1;
        return Ok(Observed::TooEarly { seconds });
    }
    let names = databases(&session).await?;
    let mut observation = Observation {
        format: FORMAT,
        operation_id: operation_id.to_owned(),
        activity: activity_of(writer, &names).await?,
        pending_counters: pending_counters(&session, framed_at, snapshot_taken).await?,
        schema: BTreeMap::new(),
        sequences: Vec::new(),
        state: None,
    };
    for name in names {
        let session = Session::open(&writer.for_database(&name), Access::ReadOnly).await?;
        observation.schema.insert(name, fingerprint(&session).await?);
        observation.sequences.extend(sequences(&session).await?);
    }
    Ok(Observed::Done(Box::new(observation)))
}

/// Whether a session may still hold back counts of what it committed in between: one that went from such a commit
/// right into a transaction that is still open. Taken to be so when the user may not see other sessions.
async fn pending_counters(
    session: &Session,
    framed_at: Timestamp,
    snapshot_taken: Timestamp,
) -> Result<bool> {
    let latest = snapshot_taken + SETTLING;
    let sql = format!(
        "SELECT NOT pg_has_role('pg_read_all_stats', 'usage') OR EXISTS (SELECT FROM pg_stat_activity \
           WHERE pid <> pg_backend_pid() AND xact_start BETWEEN '{framed_at}'::timestamptz AND '{latest}'::timestamptz \
             AND backend_type NOT IN ('walsender', 'autovacuum worker', 'parallel worker'))"
    );
    session.row("looking for sessions that hold back counts", &sql).await?.flag(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use dr_core::proof::visibility::BAND;

    use super::*;
    use crate::settings::Security;

    #[test]
    fn a_transaction_that_is_older_than_the_band_is_told_before_anything_is_read() {
        let place = Security::LocalSocket("/nowhere".into());
        let settings = ConnectionSettings::new("db", 5432, "u", None, "app", place);
        let (old, epochs) = (1000, 7 << 32);
        for xmin in [old, epochs + old] {
            assert!(usable(&format!("{xmin}:{}:{xmin}", xmin + BAND - 1), &settings).is_ok());
            let error = usable(&format!("{xmin}:{}:{xmin}", xmin + BAND), &settings).unwrap_err();
            assert_eq!(error.name(), ErrorName::FrameMissing);
            assert!(error.to_string().contains(&format!("since {xmin}, for {BAND} others")), "{error}");
        }
    }
}
