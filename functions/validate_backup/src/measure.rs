//! Metrics, from typed results.

use dr_aws::metrics;
use dr_core::proof::judgement::{Level, Report, Verdict};

use crate::request::Stage;

/// The function's name in metrics.
const OPERATION: &str = "validation";
/// The part of the restore's bytes that is proven, in percent.
const COVERAGE: &str = "dr_proof_coverage_percent";
/// Measured RPO, in seconds.
const RPO: &str = "dr_rpo_seconds";
/// Bytes of tables behind the units of a stage that ended.
const BYTES: &str = "dr_validated_bytes";

/// A stage that ended says how much it read.
pub(crate) fn stage(operation: &'static str, stage: &Stage) {
    if let Stage::Done { progress, .. } = stage {
        #[expect(clippy::cast_precision_loss, reason = "a metric needs no more than 53 bits")]
        metrics::value(BYTES, operation, progress.bytes_total as f64);
    }
}

/// A judgement counts as an ended validation.
pub(crate) fn judgement(report: &Report) {
    let judgement = &report.judgement;
    let status = match judgement.verdict {
        Verdict::Proven => "success",
        Verdict::Unproven => "unproven",
    };
    // From the examination's first look at the restore, by the restore's clock.
    let seconds = report
        .restored
        .as_ref()
        .map(|server| judgement.judged_at.duration_since(server.clock).as_secs_f64().max(0.0));
    metrics::operation_ended(OPERATION, status, seconds);
    if judgement.level == Level::Content {
        metrics::value(COVERAGE, OPERATION, judgement.coverage.proven_bytes_percent);
    }
    if let Some(seconds) = judgement.rpo_seconds {
        #[expect(clippy::cast_precision_loss, reason = "a metric needs no more than 53 bits")]
        metrics::value(RPO, OPERATION, seconds as f64);
    }
}
