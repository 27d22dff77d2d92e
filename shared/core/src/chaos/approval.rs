//! Approvals: who may say yes to which plan, and until when.
//!
//! An approval is bound to the hash of the resolved plan and to an expiry by a message authentication code, made with a
//! key that only this approver has. Making and verifying the code is the shell's part (KMS or a secret); what counts is
//! decided here.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::plan::ExperimentPlan;
use crate::error::{DrError, ErrorName, Result};
use crate::ids::OperationId;

/// The longest time for which an approval may last.
pub const LASTS: SignedDuration = SignedDuration::from_hours(24);

/// A yes to a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approval {
    /// The plan's hash, as the runner showed it.
    pub plan_hash: String,
    /// Who approves: a name of `CHAOS_APPROVAL_KEY`, 1 to 256 characters.
    pub approver: String,
    /// Until when.
    pub expires_at: Timestamp,
    /// The message authentication code, in hexadecimal.
    pub code: String,
}

impl Approval {
    /// The bytes that the code is made of. Each part is preceded by its length, so that no two approvals share them.
    pub fn message(&self, operation: &OperationId) -> Vec<u8> {
        let expiry = self.expires_at.to_string();
        let parts =
            ["lifeboat chaos approval 1", operation.as_str(), &self.plan_hash, &self.approver, &expiry];
        parts.iter().flat_map(|part| format!("{}:{part}\n", part.len()).into_bytes()).collect()
    }
}

/// An approval, and whether its code is the one that its approver's key makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The approval.
    pub approval: Approval,
    /// Whether the code is right. `false` also for an approver that has no key.
    pub genuine: bool,
}

/// Decides whether a plan may be carried out.
///
/// # Errors
/// [`ErrorName::ApprovalRequired`] with how many count, how many are needed, and why each of the others does not count.
pub fn check(plan: &ExperimentPlan, approvals: &[Examined], now: Timestamp) -> Result<BTreeSet<String>> {
    let needed = usize::from(plan.approvals);
    if needed == 0 {
        return Ok(BTreeSet::new());
    }
    let Counted { by, others } = count(plan, approvals, now)?;
    if by.len() >= needed {
        return Ok(by);
    }
    let why = if others.is_empty() { String::new() } else { format!(" ({})", others.join("; ")) };
    let hash = plan.hash()?;
    Err(refusal(plan, &format!("{} of {needed} approvals of plan {hash} count{why}", by.len())))
}

/// Which approvals of a plan count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Those who approved, in lower case.
    pub by: BTreeSet<String>,
    /// Why each of the others does not count.
    pub others: Vec<&'static str>,
}

/// Counts the approvals of a plan.
///
/// # Errors
/// [`ErrorName::ApprovalRequired`] when the plan does not say who asks; [`ErrorName::Internal`] when it has no hash.
pub fn count(plan: &ExperimentPlan, approvals: &[Examined], now: Timestamp) -> Result<Counted> {
    let Some(requester) = &plan.requested_by else {
        let why = "`requestedBy` must say who asks, because somebody else has to approve";
        return Err(refusal(plan, why));
    };
    let hash = plan.hash()?;
    let mut counted = Counted { by: BTreeSet::new(), others: Vec::new() };
    for Examined { approval, genuine } in approvals {
        let fault = if !genuine {
            Some("its code is not its approver's")
        } else if approval.plan_hash != hash {
            Some("it is for another plan")
        } else if approval.expires_at <= now {
            Some("it has expired")
        } else if approval.expires_at.duration_since(now) > LASTS {
            Some("it would last longer than 24 hours")
        } else if same_person(&approval.approver, requester) {
            Some("its approver is the requester")
        } else {
            None
        };
        match fault {
            None => {
                counted.by.insert(approval.approver.trim().to_lowercase());
            }
            Some(why) => counted.others.push(why),
        }
    }
    counted.others.sort_unstable();
    Ok(counted)
}

/// Refuses one approval that does not count, before it is kept.
///
/// # Errors
/// [`ErrorName::ApprovalRequired`] with the reason.
pub fn check_one(plan: &ExperimentPlan, approval: &Examined, now: Timestamp) -> Result<()> {
    let counted = count(plan, std::slice::from_ref(approval), now)?;
    counted
        .others
        .first()
        .map_or(Ok(()), |why| Err(refusal(plan, &format!("an approval does not count: {why}"))))
}

fn refusal(plan: &ExperimentPlan, why: &str) -> DrError {
    let what = format!("approving experiment {}: {why}", plan.experiment_id);
    DrError::new(ErrorName::ApprovalRequired, what)
}

/// Whether two names mean one person. Case does not make two of one.
fn same_person(a: &str, b: &str) -> bool {
    a.trim().to_lowercase() == b.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::chaos::experiment::{Family, Severity};
    use crate::ids::Region;

    fn now() -> Timestamp {
        "2026-11-25T12:00:00Z".parse().unwrap()
    }

    fn plan(approvals: u8) -> ExperimentPlan {
        ExperimentPlan {
            experiment_id: "one".to_owned(),
            family: Family::Regional,
            severity: Severity::Critical,
            region: Region::parse("us-east-1").unwrap(),
            seed: "seed".to_owned(),
            intensity: 100,
            steps: Vec::new(),
            guards: Vec::new(),
            duration_seconds: 60,
            recovery_seconds: 900,
            settling_seconds: 30,
            worst_case_seconds: 180,
            pre_checks: Vec::new(),
            steady_state: Vec::new(),
            stop_conditions: Vec::new(),
            post_checks: Vec::new(),
            data_check: None,
            approvals,
            requested_by: Some("Ada".to_owned()),
            channels: BTreeSet::new(),
        }
    }

    fn approval(plan: &ExperimentPlan, approver: &str) -> Examined {
        let approval = Approval {
            plan_hash: plan.hash().unwrap(),
            approver: approver.to_owned(),
            expires_at: now() + SignedDuration::from_hours(1),
            code: String::new(),
        };
        Examined { approval, genuine: true }
    }

    #[test]
    fn an_experiment_that_needs_none_begins_without() {
        assert!(check(&plan(0), &[], now()).unwrap().is_empty());
    }

    type Spoil = fn(&mut Examined);

    #[test]
    fn what_does_not_count_is_refused_with_the_reason() {
        let plan = plan(1);
        let cases: [(&str, Spoil); 7] = [
            ("code is not", |it| it.genuine = false),
            ("another plan", |it| "0".repeat(64).clone_into(&mut it.approval.plan_hash)),
            ("expired", |it| it.approval.expires_at = now()),
            ("24 hours", |it| it.approval.expires_at = now() + SignedDuration::from_hours(25)),
            ("the requester", |it| "Ada".clone_into(&mut it.approval.approver)),
            ("the requester", |it| " ada ".clone_into(&mut it.approval.approver)),
            ("the requester", |it| "ADA".clone_into(&mut it.approval.approver)),
        ];
        for (expected, change) in cases {
            let mut one = approval(&plan, "grace");
            change(&mut one);
            let error = check(&plan, &[one], now()).unwrap_err();
            assert_eq!(error.name(), ErrorName::ApprovalRequired);
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        }
        assert!(check(&plan, &[approval(&plan, "grace")], now()).is_ok());
    }

    #[test]
    fn one_person_counts_once_and_n_are_needed_of_m() {
        let plan = plan(2);
        let [grace, again, edsger] = ["grace", "GRACE", "edsger"].map(|name| approval(&plan, name));
        let short = [grace.clone(), again];
        assert_eq!(check(&plan, &short, now()).unwrap_err().name(), ErrorName::ApprovalRequired);
        assert_eq!(check(&plan, &[grace, edsger], now()).unwrap().len(), 2);
    }

    #[test]
    fn nobody_can_approve_for_a_requester_without_a_name() {
        let nameless = ExperimentPlan { requested_by: None, ..plan(1) };
        let error = check(&nameless, &[approval(&nameless, "grace")], now()).unwrap_err();
        assert_eq!(error.name(), ErrorName::ApprovalRequired);
    }

    #[test]
    fn the_message_binds_operation_plan_approver_and_expiry() {
        let operation = |digits: &str| OperationId::parse(format!("chaos-{digits}")).unwrap();
        let one = approval(&plan(1), "grace").approval;
        let first = one.message(&operation("0123456789abcdef"));
        let mut others = vec![one.message(&operation("0123456789abcdee"))];
        for change in [
            |it: &mut Approval| it.approver.push('x'),
            |it: &mut Approval| it.plan_hash.push('0'),
            |it: &mut Approval| it.expires_at += SignedDuration::from_nanos(1),
        ] {
            let mut other = one.clone();
            change(&mut other);
            others.push(other.message(&operation("0123456789abcdef")));
        }
        assert!(others.iter().all(|other| *other != first));
    }
}
