//! Asking for approvals, taking them, and telling the state that waits.

use std::collections::BTreeMap;

use dr_aws::Invocation;
use dr_core::chaos::approval::{self, Approval, Examined};
use dr_core::chaos::plan::ExperimentPlan;
use dr_core::chaos::records::Pending;
use dr_core::ids::OperationId;
use dr_core::{DrError, ErrorName, Result, input};
use ring::hmac;
use serde_json::json;

use crate::config::ApprovalKeys;
use crate::request::{Answer, Approve, Asked, AwaitApproval, Count};
use crate::{Desk, Handler, plan_key};

/// The shortest key of an approver, bytes: as long as the code (RFC 2104, section 3).
const SHORTEST_KEY: usize = 32;

impl Handler {
    pub(crate) async fn await_approval(
        &self,
        request: &AwaitApproval,
        invocation: &Invocation,
    ) -> Result<Answer> {
        let operation = &request.operation_id;
        self.somebody_can_approve(operation.as_str())?;
        let plan = self.planned(operation, &request.plan_hash).await?;
        let desk = self.home();
        let now = invocation.now();
        desk.change("asking for approvals", async || {
            let existing: Option<Pending> = desk.table.read(&Pending::key(operation)).await?;
            let token = &request.task_token;
            let change = Pending::ask(operation, &request.execution, &plan, token, existing.as_ref(), now)?;
            Ok((Some(change), ()))
        })
        .await?;
        self.ask_people(operation, &plan, &request.plan_hash).await?;
        Ok(Answer::Asked(Asked { asked: true }))
    }

    /// # Errors
    /// [`ErrorName::ApprovalRequired`] when nobody can approve.
    pub(crate) fn somebody_can_approve(&self, asked: &str) -> Result<()> {
        if self.config.approval_keys == ApprovalKeys::None {
            let what = format!("asking for approvals of {asked}: CHAOS_APPROVAL_KEY is not set");
            return Err(DrError::new(ErrorName::ApprovalRequired, what).with_remedy(
                "Set the stack's parameter ChaosApprovalKey (runbook \"Approve an experiment\").",
            ));
        }
        Ok(())
    }

    /// The plan that was answered before, from the metadata bucket; what was changed there is not it.
    async fn planned(&self, operation: &OperationId, hash: &str) -> Result<ExperimentPlan> {
        let key = plan_key(operation, hash);
        let what = format!("reading the plan s3://{}/{key}", self.config.bucket);
        let body = Box::pin(self.clients.bucket(&self.config.bucket).get(&key)).await?;
        let body = body.ok_or_else(|| DrError::new(ErrorName::OperationMissing, what.clone()))?;
        let plan: ExperimentPlan = input::parse_text("a recorded plan", &String::from_utf8_lossy(&body))
            .map_err(|error| DrError::new(ErrorName::MetadataDamaged, what.clone()).with_source(error))?;
        if plan.hash()? != hash {
            return Err(DrError::new(
                ErrorName::MetadataDamaged,
                format!("{what}: it is not the plan of that hash"),
            ));
        }
        Ok(plan)
    }

    pub(crate) async fn approve(&self, request: &Approve, invocation: &Invocation) -> Result<Answer> {
        let operation = &request.operation_id;
        let desk = self.home();
        let now = invocation.now();
        let mut examined = self.examine(std::slice::from_ref(&request.approval), operation).await?;
        let this = examined.pop();
        let pending = desk
            .change("taking an approval", async || {
                let pending = desk.pending(operation).await?;
                if let Some(this) = &this {
                    approval::check_one(&pending.plan, this, now)?;
                }
                Ok((pending.add(&request.approval)?, pending))
            })
            .await?;
        let mut all = pending.approvals;
        if !all.contains(&request.approval) {
            all.push(request.approval.clone());
        }
        let examined = self.examine(&all, operation).await?;
        let by = approval::count(&pending.plan, &examined, now)?.by;
        let needed = pending.plan.approvals;
        let approved = by.len() >= usize::from(needed);
        if approved {
            desk.change("noting that there are enough approvals", async || {
                Ok((desk.pending(operation).await?.approved(now), ()))
            })
            .await?;
            self.executions.task_succeeded(&pending.task_token, &json!({"approvedBy": by})).await?;
        }
        Ok(Answer::Approved(Count { counted: by.len(), needed, approved }))
    }

    /// Verifies the code of each approval with its approver's key.
    pub(crate) async fn examine(
        &self,
        approvals: &[Approval],
        operation: &OperationId,
    ) -> Result<Vec<Examined>> {
        let keys = match &self.config.approval_keys {
            ApprovalKeys::Secret(secret) if !approvals.is_empty() => self.secret_keys(secret).await?,
            _ => BTreeMap::new(),
        };
        let mut all = Vec::new();
        for approval in approvals {
            let message = approval.message(operation);
            let name = approval.approver.trim().to_lowercase();
            let code = bytes(&approval.code).unwrap_or_default();
            let genuine = match &self.config.approval_keys {
                ApprovalKeys::None => false,
                ApprovalKeys::Secret(_) => keys.get(&name).is_some_and(|key| {
                    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
                    hmac::verify(&key, &message, &code).is_ok()
                }),
                ApprovalKeys::Kms(keys) => match keys.get(&name) {
                    Some(key) if !code.is_empty() => {
                        let kms = self.clients.kms(self.clients.home());
                        kms.verify_mac(key, &message, &code).await?
                    }
                    _ => false,
                },
            };
            all.push(Examined { approval: approval.clone(), genuine });
        }
        Ok(all)
    }

    /// The approvers' keys, by name in lower case.
    async fn secret_keys(&self, secret: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let what = format!("reading the approvers' keys in secret `{secret}`");
        let fault = |why: &str| DrError::new(ErrorName::InvalidConfiguration, format!("{what}: {why}"));
        let text =
            self.clients.secrets().text(secret).await?.ok_or_else(|| fault("there is no such secret"))?;
        // The cause is left out on purpose: serde repeats what it could not read.
        let names: BTreeMap<String, String> =
            serde_json::from_str(&text).map_err(|_| fault("its content is not JSON of names and keys"))?;
        let mut keys = BTreeMap::new();
        for (name, key) in names {
            let key = bytes(&key).filter(|key| key.len() >= SHORTEST_KEY);
            let key = key.ok_or_else(|| fault("a key is not hexadecimal, or has fewer than 32 bytes"))?;
            if keys.insert(name.trim().to_lowercase(), key).is_some() {
                return Err(fault("a name is in it twice: case does not make two approvers of one"));
            }
        }
        Ok(keys)
    }
}

impl Desk<'_> {
    async fn pending(&self, operation: &OperationId) -> Result<Pending> {
        let pending: Option<Pending> = self.table.read(&Pending::key(operation)).await?;
        pending.ok_or_else(|| {
            DrError::new(
                ErrorName::OperationMissing,
                format!("approving {operation}: it waits for no approval"),
            )
        })
    }
}

/// Bytes of hexadecimal digits; nothing else may be among them, not even a sign.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let whole = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok());
    if whole { pairs.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_strictly() {
        assert_eq!(bytes("00ff A"), None);
        assert_eq!(bytes("0"), None);
        assert_eq!(bytes("zz"), None);
        assert_eq!(bytes("ää"), None);
        assert_eq!(bytes("+1"), None);
        assert_eq!(bytes("00fF"), Some(vec![0, 255]));
    }
}
