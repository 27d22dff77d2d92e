//! Judging: all records of a proof together, the report written, the judgement answered.

use dr_core::ids::OperationId;
use dr_core::proof::examination::Examination;
use dr_core::proof::frame::{Frame, Observation, UnitResult};
use dr_core::proof::judge::{self, Earlier, EarlierRestore, Input};
use dr_core::proof::judgement::{FirstProof, Level, Report, RestoreFacts, TableJudgement, Verdict};
use dr_core::{ErrorName, Result};
use jiff::Timestamp;
use serde::Deserialize;

use crate::examine::{self, CATALOGUE, CHECKS, NARROWING, PLAN, UNITS};
use crate::observe::{AGAIN, OBSERVATION};
use crate::store::{Records, Store};

/// The record of the report.
pub const REPORT: &str = "report.json";

/// What is judged beside the records.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The snapshot.
    pub snapshot_id: String,
    /// The database that it is of.
    pub database: Option<String>,
    /// When it was taken.
    pub snapshot_taken_at: Option<Timestamp>,
    /// The greatest RPO that is good enough.
    pub max_rpo_seconds: Option<u32>,
    /// The restore itself.
    pub restore: RestoreFacts,
    /// Now.
    pub now: Timestamp,
}

/// What is known of an earlier proof of the same snapshot, or of the snapshot that it is a copy of.
#[derive(Debug)]
pub enum Known<'r, 's, S> {
    /// There was none.
    Nothing,
    /// There was one, and nothing says which.
    Unnamed,
    /// Its records.
    Proof(&'r Records<'s, S>),
}

/// The part of a report that a later proof is compared with.
#[derive(Debug, Deserialize)]
struct Judged {
    judgement: JudgedVerdict,
    tables: Vec<TableJudgement>,
}

#[derive(Debug, Deserialize)]
struct JudgedVerdict {
    verdict: Verdict,
}

/// The records of an earlier proof; `None` when they are not there any more.
async fn restored<S: Store>(records: &Records<'_, S>) -> Result<Option<EarlierRestore>> {
    let Some(judged) = records.read::<Judged>(REPORT).await? else { return Ok(None) };
    let (Some(plan), Some(catalogue)) = (records.read(PLAN).await?, records.read(CATALOGUE).await?) else {
        return Ok(None);
    };
    Ok(Some(EarlierRestore {
        verdict: judged.judgement.verdict,
        tables: judged.tables,
        plan,
        units: records.all(UNITS).await?,
        catalogue,
    }))
}

/// Writes down, beside a backup's other records, that this proof was the first to find its snapshot proven. An earlier
/// one stays; an unproven one, and one that restored nothing, is never written.
///
/// # Errors
/// Of the storage.
pub async fn remember_first<S: Store>(
    backup: &Records<'_, S>,
    proof: &OperationId,
    snapshot_arn: &str,
    report: &Report,
) -> Result<()> {
    let judgement = &report.judgement;
    if judgement.verdict != Verdict::Proven || judgement.level == Level::Quick {
        return Ok(());
    }
    let first = FirstProof {
        format: FirstProof::FORMAT,
        operation_id: proof.clone(),
        snapshot_arn: snapshot_arn.to_owned(),
        judged_at: judgement.judged_at,
    };
    backup.write_once(FirstProof::RECORD, &first).await
}

/// Judges once; a second call answers the stored report. The flag tells whether it is new.
///
/// # Errors
/// `FrameMissing`, `MetadataDamaged` where records are absent or contradict each other; of the storage.
pub async fn conclude<S: Store>(
    records: &Records<'_, S>,
    frame: Option<&Records<'_, S>>,
    earlier: Known<'_, '_, S>,
    circumstances: &Circumstances,
) -> Result<(Report, bool)> {
    if let Some(report) = records.read::<Report>(REPORT).await? {
        return Ok((report, false));
    }
    let (mut again, mut observation): (Vec<UnitResult>, Option<Observation>) = (Vec::new(), None);
    let frame: Option<Frame> = match frame {
        Some(records) => {
            observation = records.read(OBSERVATION).await?;
            again = records.all(AGAIN).await?;
            Some(examine::whole_frame(records).await?)
        }
        None => None,
    };
    let examination = Examination {
        plan: records.expect(PLAN, ErrorName::MetadataDamaged).await?,
        units: records.all(UNITS).await?,
        checks: records.all(CHECKS).await?,
        catalogue: records.expect(CATALOGUE, ErrorName::MetadataDamaged).await?,
        narrowings: records.all(NARROWING).await?,
    };
    let (operation_id, then) = match earlier {
        Known::Nothing | Known::Unnamed => (None, None),
        Known::Proof(records) => (Some(records.operation()), restored(records).await?),
    };
    let report_key = records.key(REPORT);
    let report = judge::judge(&Input {
        operation_id: records.operation(),
        snapshot_id: &circumstances.snapshot_id,
        database: circumstances.database.as_deref(),
        frame: frame.as_ref(),
        observation: observation.as_ref(),
        again: &again,
        earlier: match (&then, earlier) {
            (Some(then), _) => Earlier::Restored(then),
            (None, Known::Nothing) => Earlier::None,
            (None, Known::Unnamed | Known::Proof(_)) => Earlier::Missing { operation_id },
        },
        examination: &examination,
        snapshot_taken_at: circumstances.snapshot_taken_at,
        max_rpo_seconds: circumstances.max_rpo_seconds,
        restore: &circumstances.restore,
        now: circumstances.now,
        report_key: &report_key,
    })?;
    records.write(REPORT, &report).await?;
    Ok((report, true))
}
