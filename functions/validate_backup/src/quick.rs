//! The quick look: what RDS says about a snapshot, as `dr-core` judges it.

use dr_core::observed::SnapshotFacts;
use dr_core::proof::judge::quick::{QuickInput, SnapshotView, judge as look};
use dr_core::proof::judgement::Report;
use jiff::Timestamp;

use crate::request::QuickRequest;

/// Judges a snapshot from outside.
pub fn judge(request: &QuickRequest, snapshot: &SnapshotFacts, report_key: &str, now: Timestamp) -> Report {
    let view = SnapshotView {
        database: snapshot.database.clone(),
        database_kind: snapshot.database_kind,
        status: snapshot.status.clone(),
        engine: snapshot.engine.clone(),
        engine_version: snapshot.engine_version.clone(),
        size_gb: u32::try_from(snapshot.size_gb).unwrap_or(0),
        encrypted: snapshot.encrypted,
        taken_at: snapshot.taken_at(),
        tags: snapshot.tags.clone(),
    };
    look(&QuickInput {
        operation_id: request.operation_id.as_str(),
        snapshot_id: request.snapshot_id.as_str(),
        database: request.database.as_ref().map(dr_core::ids::DatabaseId::as_str),
        snapshot: &view,
        max_age_seconds: request.validation.max_rpo_seconds,
        now,
        report_key,
    })
}
