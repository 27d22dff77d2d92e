//! `validate_backup`: records a source before its snapshot, examines a restore of it, and judges.
//!
//! It writes to the source one row (the heartbeat) and nothing else, creates and deletes no instance, and decides
//! nothing about what happens to a backup. What it learns lives in the metadata bucket under
//! `operations/<operation>/`; payloads stay small, and an invocation that is killed loses the units in flight.

pub mod allowance;
pub mod compare;
pub mod config;
pub mod examine;
pub mod frame;
pub mod judge;
pub mod ledger;
pub mod observe;
pub mod quick;
pub mod reach;
pub mod request;
pub mod store;

mod engine;
mod measure;

use dr_aws::Invocation;
use dr_core::ids::OperationId;
use dr_core::labels::{self, Proof};
use dr_core::observed::{DatabaseKind, SnapshotFacts};
use dr_core::proof::cut::UNIT_BYTES;
use dr_core::proof::judgement::{Level, RestoreFacts};
use dr_core::recovery::Chosen;
use dr_core::{ErrorName, Result};
use dr_postgres::Source;

pub use config::Config;
pub use reach::Reach;
pub use request::{Answer, Request};

use request::{
    CompareRequest, ExamineRequest, FrameRequest, JudgeRequest, LedgerRequest, ObserveRequest, QuickRequest,
};
use store::{Records, Store};

/// The function with what its invocations share.
#[derive(Debug)]
pub struct Handler<S> {
    /// Where records live.
    pub store: S,
    /// Where the frames of another Region's backups are, whose copies are proven here. Only read.
    pub home: Option<S>,
    /// How databases are found.
    pub reach: Reach,
}

impl<S: Store> Handler<S> {
    /// Answers one request.
    ///
    /// # Errors
    /// Named as in `docs/errors.md`.
    pub async fn handle(&self, request: Request, invocation: &Invocation) -> Result<Answer> {
        match request {
            Request::Frame(request) => self.frame(&request, invocation).await,
            Request::Observe(request) => self.observe(&request, invocation).await,
            Request::Examine(request) => self.examine(&request, invocation).await,
            Request::Judge(request) => self.judge(&request, invocation).await,
            Request::Quick(request) => self.quick(&request, invocation).await,
            Request::Ledger(request) => self.ledger(&request).await,
            Request::Compare(request) => self.compare(&request, invocation).await,
        }
    }

    async fn frame(&self, request: &FrameRequest, invocation: &Invocation) -> Result<Answer> {
        request.validation.check()?;
        let credentials = request.validation.credentials.as_ref();
        let writer = self.reach.database(&request.database, request.database_kind).await?;
        let writer_settings = self.reach.source(&writer, credentials).await?;
        let replica = match &request.validation.frame_from {
            Some(id) => {
                let facts = self.reach.database(id, Some(DatabaseKind::Instance)).await?;
                Some((self.reach.source(&facts, credentials).await?, facts))
            }
            None => None,
        };
        let source = match &replica {
            Some((settings, facts)) => {
                Source { reader: settings, writer: Some(&writer_settings), instance: facts.id.as_str() }
            }
            None => Source { reader: &writer_settings, writer: None, instance: writer.id.as_str() },
        };
        let records = Records::of(&self.store, request.operation_id.as_str());
        let limits = allowance::limits(invocation.remaining(), &request.validation);
        let stage = frame::advance(&records, &source, &request.validation, UNIT_BYTES, limits).await?;
        measure::stage("frame", &stage);
        Ok(Answer::Stage(stage))
    }

    /// The records of an operation: here, or at home when `record` is not here.
    async fn records_of(
        &self,
        operation: Option<&OperationId>,
        record: &str,
    ) -> Result<Option<Records<'_, S>>> {
        let Some(id) = operation else { return Ok(None) };
        let here = Records::of(&self.store, id.as_str());
        match &self.home {
            Some(home) if !here.has(record).await? => Ok(Some(Records::of(home, id.as_str()))),
            _ => Ok(Some(here)),
        }
    }

    async fn observe(&self, request: &ObserveRequest, invocation: &Invocation) -> Result<Answer> {
        request.validation.check()?;
        let snapshot = self.reach.snapshot(&request.snapshot_id, request.database_kind).await?;
        let facts = self.reach.database(&request.database, request.database_kind).await?;
        let writer = self.reach.source(&facts, request.validation.credentials.as_ref()).await?;
        let taken = snapshot.created_at.ok_or_else(|| {
            dr_core::DrError::new(
                ErrorName::DatabaseUnavailable,
                format!("observing `{}`: snapshot `{}` has no creation time yet", facts.id, snapshot.id),
            )
        })?;
        let records = Records::of(&self.store, request.operation_id.as_str());
        let limits = allowance::limits(invocation.remaining(), &request.validation);
        observe::advance(&records, &writer, taken, &request.validation, limits).await.map(Answer::Stage)
    }

    async fn examine(&self, request: &ExamineRequest, invocation: &Invocation) -> Result<Answer> {
        request.validation.check()?;
        let restore = self.reach.target(&request.target).await?;
        let records = Records::of(&self.store, request.operation_id.as_str());
        let frame = self.records_of(request.frame_operation_id.as_ref(), frame::PLAN).await?;
        let subject = examine::Subject {
            records: &records,
            frame: frame.as_ref(),
            restore: &restore,
            validation: &request.validation,
            unit_bytes: UNIT_BYTES,
        };
        let source = async || {
            let id = request.database.as_ref().ok_or_else(|| {
                dr_core::DrError::new(
                    ErrorName::DatabaseMissing,
                    "asking the source: the request does not name it",
                )
            })?;
            let facts = self.reach.database(id, request.database_kind).await?;
            self.reach.source(&facts, request.validation.credentials.as_ref()).await
        };
        let limits = allowance::limits(invocation.remaining(), &request.validation);
        let stage = subject.advance(source, limits).await?;
        measure::stage("examination", &stage);
        Ok(Answer::Stage(stage))
    }

    async fn judge(&self, request: &JudgeRequest, invocation: &Invocation) -> Result<Answer> {
        let snapshot = self.reach.snapshot(&request.snapshot_id, request.database_kind).await?;
        let records = Records::of(&self.store, request.operation_id.as_str());
        let frame = self.records_of(request.frame_operation_id.as_ref(), frame::PLAN).await?;
        let circumstances = judge::Circumstances {
            snapshot_id: request.snapshot_id.as_str().to_owned(),
            database: Some(request.database.as_ref().map_or(snapshot.database.clone(), ToString::to_string)),
            snapshot_taken_at: snapshot.taken_at(),
            max_rpo_seconds: request.validation.max_rpo_seconds,
            restore: RestoreFacts {
                instance_id: Some(request.target.instance_id.to_string()),
                time_to_available_seconds: Some(request.restore.time_to_available_seconds),
            },
            now: invocation.received_at,
        };
        let then = self.records_of(request.earlier_operation_id.as_ref(), judge::REPORT).await?;
        let earlier = match &then {
            Some(then) => judge::Known::Proof(then),
            None if was_proven(&snapshot) => judge::Known::Unnamed,
            None => judge::Known::Nothing,
        };
        let (report, new) = judge::conclude(&records, frame.as_ref(), earlier, &circumstances).await?;
        // Later proofs are compared with this one, unless this one was with an earlier one, or with another backup's
        // frame.
        if let Some(owner) = Chosen::of(&snapshot).owner
            && request.earlier_operation_id.is_none()
            && request.frame_operation_id.as_ref().is_none_or(|frame| *frame == owner)
        {
            let backup = Records::of(&self.store, owner.as_str());
            judge::remember_first(&backup, &request.operation_id, &snapshot.arn, &report).await?;
        }
        if new {
            measure::judgement(&report);
        }
        Ok(Answer::Judgement(Box::new(report.judgement)))
    }

    async fn quick(&self, request: &QuickRequest, invocation: &Invocation) -> Result<Answer> {
        let snapshot = self.reach.snapshot(&request.snapshot_id, request.database_kind).await?;
        let records = Records::of(&self.store, request.operation_id.as_str());
        let report = quick::judge(request, &snapshot, &records.key(judge::REPORT), invocation.received_at);
        records.write(judge::REPORT, &report).await?;
        measure::judgement(&report);
        Ok(Answer::Judgement(Box::new(report.judgement)))
    }

    async fn ledger(&self, request: &LedgerRequest) -> Result<Answer> {
        let facts = self.reach.in_any_status(&request.database, request.database_kind).await?;
        let writer = self.reach.source(&facts, request.credentials.as_ref()).await?;
        let records = Records::of(&self.store, request.operation_id.as_str());
        ledger::turn(&records, &request.database, &writer, request.look_only).await.map(Answer::Ledger)
    }

    async fn compare(&self, request: &CompareRequest, invocation: &Invocation) -> Result<Answer> {
        request.validation.check()?;
        let facts = self.reach.in_any_status(&request.database, request.database_kind).await?;
        let writer = self.reach.source(&facts, request.validation.credentials.as_ref()).await?;
        let source = compare::Source {
            records: &Records::of(&self.store, request.operation_id.as_str()),
            database: &request.database,
            writer: &writer,
            validation: &request.validation,
        };
        let limits = allowance::limits(invocation.remaining(), &request.validation);
        source.advance(limits, invocation.received_at).await.map(Answer::Comparing)
    }
}

/// Whether a snapshot, or the one that it is a copy of, was restored and found proven before, by its tags.
fn was_proven(snapshot: &SnapshotFacts) -> bool {
    let level = snapshot.tags.get(labels::PROOF_LEVEL).and_then(|level| Level::parse(level));
    labels::has(&snapshot.tags, labels::PROOF, Proof::Proven.as_str()) && level > Some(Level::Quick)
}
