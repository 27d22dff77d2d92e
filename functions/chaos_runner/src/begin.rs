//! From a request to a journal: resolving, pre-checks, approvals, locks.

use std::collections::{BTreeMap, BTreeSet};

use dr_aws::Invocation;
use dr_aws::objects::Overwrite;
use dr_aws::state::Applied;
use dr_core::chaos::approval;
use dr_core::chaos::data::DataCheck;
use dr_core::chaos::experiment::ExperimentRequest;
use dr_core::chaos::fault::Fault;
use dr_core::chaos::freeze;
use dr_core::chaos::journal::Journal;
use dr_core::chaos::plan::{self, ExperimentPlan};
use dr_core::chaos::probe::{Finding, Probe, first_fault};
use dr_core::chaos::put_back::Step;
use dr_core::chaos::records::{self, Held, Pending};
use dr_core::chaos::world;
use dr_core::control::{EmergencyStop, HolderState, Lock, check_emergency_stop};
use dr_core::ids::{OperationId, Region};
use dr_core::labels;
use dr_core::observed::{DatabaseFacts, Observed};
use dr_core::{DrError, Engine, EngineFamily, ErrorName, Result, input};
use jiff::Timestamp;
use serde_json::Value;

use crate::probes::Asker;
use crate::request::{Answer, Arm, DataAsked, PlanRequest, Planned, Standing};
use crate::{Desk, Handler, MOST_ATTEMPTS, as_json, plan_key, standing};

impl Handler {
    /// Resolves, asks, writes the plan down. A dry run is told everything that is in the way.
    pub(crate) async fn plan(&self, request: PlanRequest, invocation: &Invocation) -> Result<Answer> {
        let operation = &request.operation_id;
        let experiment = self.read(request.request)?;
        let dry_run = experiment.only_plans(&self.config.limits);
        let plan = self.resolve(&experiment, operation).await?;
        let data_check = match &plan.data_check {
            Some(check) => Some(self.data_asked(check, &plan.region).await?),
            None => None,
        };
        let stop: Option<EmergencyStop> = self.home().table.read(EmergencyStop::KEY).await?;
        let mut obstacles = Vec::new();
        for check in [
            check_emergency_stop(stop.as_ref()),
            self.can_be_approved(&plan, invocation.now()),
            freeze::check(&self.config.limits.freeze, invocation.now()),
            self.check_before(&plan, Asker { operation, look_only: true }, invocation).await.map(|_| ()),
        ] {
            match check {
                Err(error) if dry_run => obstacles.push(error.to_string()),
                other => other?,
            }
        }
        let plan_hash = plan.hash()?;
        let plan_key = self.keep(&plan, operation, &plan_hash).await?;
        Ok(Answer::Planned(Box::new(Planned {
            experiment_id: plan.experiment_id.clone(),
            dry_run,
            ready: obstacles.is_empty(),
            obstacles,
            approvals: plan.approvals,
            approval_seconds: self.config.approval_seconds,
            steps: plan.steps.len(),
            blast_radius: plan.blast_radius(),
            duration_seconds: plan.duration_seconds,
            worst_case_seconds: plan.worst_case_seconds,
            lines: plan.lines(),
            data_check,
            plan_hash,
            plan_key,
        })))
    }

    /// Reads an experiment strictly, within what the installation allows.
    fn read(&self, request: Value) -> Result<ExperimentRequest> {
        let experiment: ExperimentRequest = input::parse("the experiment", request)?;
        experiment.check(&self.config.limits)?;
        Ok(experiment)
    }

    async fn resolve(
        &self,
        experiment: &ExperimentRequest,
        operation: &OperationId,
    ) -> Result<ExperimentPlan> {
        let limits = &self.config.limits;
        let desk = self.home();
        let mut seen = desk.look(&plan::needed(experiment, limits)).await?;
        let besides = plan::needed_besides(&seen);
        if !besides.is_empty() {
            seen.extend(desk.look(&besides).await?);
        }
        let plan = plan::resolve(experiment, limits, operation, &seen)?;
        self.isolates(&plan).await?;
        Ok(plan)
    }

    /// Refuses to isolate a machine by a group that lets something through.
    async fn isolates(&self, plan: &ExperimentPlan) -> Result<()> {
        let group = |step: &Step| match &step.fault {
            Fault::SecurityGroupIsolate { security_group } => Some(security_group.clone()),
            _ => None,
        };
        let groups: BTreeSet<String> = plan.steps.iter().filter_map(group).collect();
        for group in groups {
            let what = format!("planning security-group-isolate with `{group}` in {}", plan.region);
            match self.world.rules_of(&plan.region, &group).await {
                Observed::Found(0) => {}
                Observed::Found(rules) => {
                    let text = format!("{what}: it has {rules} rule(s), so it does not isolate");
                    return Err(DrError::new(ErrorName::FaultImpossible, text)
                        .with_remedy("Name a group without any rule, inbound or outbound."));
                }
                Observed::Missing => return Err(DrError::new(ErrorName::TargetMissing, what)),
                Observed::Unreachable(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How a database is read before and after. One that cannot be compared is refused before anything is touched.
    async fn data_asked(&self, check: &DataCheck, region: &Region) -> Result<DataAsked> {
        let (id, what) = (&check.database, format!("planning the data check of {}", check.database));
        let found = Box::pin(self.clients.rds(region).find_database(id, check.database_kind)).await;
        let facts = found.found_or_else(|| {
            DrError::new(ErrorName::DatabaseMissing, format!("{what}: there is none in {region}"))
        })?;
        may_be_written_to(&facts)?;
        let engine = Engine::supported(&facts.engine, &facts.engine_version, &what)?;
        if engine.family() != EngineFamily::PostgreSql {
            let text = format!("{what}: its engine is `{}`", facts.engine);
            return Err(DrError::new(ErrorName::EngineUnsupported, text).with_remedy(
                "Leave `dataCheck` out and ask the probe `data-intact`: rows of MySQL do not tell their age.",
            ));
        }
        Ok(DataAsked { database: facts.id, database_kind: facts.kind, validation: check.validation() })
    }

    /// Refuses probes that write to a database which does not carry the tag: a ledger is a row in it.
    async fn ledgers_allowed(&self, plan: &ExperimentPlan) -> Result<()> {
        for id in plan.ledgers() {
            let home = self.clients.home();
            match Box::pin(self.clients.rds(home).find_database(id, None)).await {
                Observed::Found(facts) => may_be_written_to(&facts)?,
                // That is what its probe says.
                Observed::Missing => {}
                Observed::Unreachable(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The pre-checks and the steady state, which must all pass. Answers the steady state.
    async fn check_before(
        &self,
        plan: &ExperimentPlan,
        of: Asker<'_>,
        invocation: &Invocation,
    ) -> Result<Vec<Finding>> {
        self.ledgers_allowed(plan).await?;
        // A ledger that is first asked at the end has nothing to compare with: its first beat is written now.
        let is_ledger = |probe: &&Probe| matches!(probe, Probe::DataIntact { .. });
        let ledgers: Vec<Probe> = plan.post_checks.iter().filter(is_ledger).cloned().collect();
        for (which, probes) in [
            ("pre-check", &plan.pre_checks),
            ("stop condition", &plan.stop_conditions),
            ("a check at the end", &ledgers),
        ] {
            let findings = self.ask(probes, plan, of, invocation).await;
            refuse(which, plan, &findings)?;
        }
        let steady = self.ask(&plan.steady_state, plan, of, invocation).await;
        refuse("the steady state", plan, &steady)?;
        Ok(steady)
    }

    async fn keep(&self, plan: &ExperimentPlan, operation: &OperationId, hash: &str) -> Result<String> {
        let key = plan_key(operation, hash);
        let body = as_json("an experiment's plan", plan)?;
        let bucket = self.clients.bucket(&self.config.bucket);
        Box::pin(bucket.put(&key, body, "application/json", Overwrite::Allowed)).await?;
        Ok(key)
    }

    /// Resolves anew, because what was approved may not be what is there, and begins.
    pub(crate) async fn arm(&self, request: Arm, invocation: &Invocation) -> Result<Answer> {
        let desk = self.home();
        let operation = &request.operation_id;
        if let Some(journal) = desk.journal(operation).await? {
            return Ok(Answer::Standing(Box::new(standing(&journal, 0, "it has begun")?)));
        }
        let experiment = self.read(request.request.clone())?;
        let begun = self.begin(&desk, &experiment, &request, invocation).await;
        // Also what an earlier attempt left.
        if begun.is_err() && matches!(desk.journal(operation).await, Ok(None)) {
            desk.forget_there(operation, experiment.region(&self.config.limits)).await;
        }
        begun.map(|standing| Answer::Standing(Box::new(standing)))
    }

    async fn begin(
        &self,
        desk: &Desk<'_>,
        experiment: &ExperimentRequest,
        request: &Arm,
        invocation: &Invocation,
    ) -> Result<Standing> {
        let operation = &request.operation_id;
        if experiment.only_plans(&self.config.limits) {
            let what = format!("beginning {}: it is a dry run", experiment.id);
            return Err(DrError::new(ErrorName::InvalidInput, what));
        }
        let now = invocation.now();
        freeze::check(&self.config.limits.freeze, now)?;
        let plan = self.resolve(experiment, operation).await?;
        let approved_by = self.approvals_of(desk, &plan, operation, now).await?;
        let steady = self.check_before(&plan, Asker { operation, look_only: false }, invocation).await?;
        let hash = plan.hash()?;
        if hash != request.plan_hash {
            tracing::info!(
                planned = request.plan_hash,
                now = hash,
                "the world changed since the plan was made"
            );
            self.keep(&plan, operation, &hash).await?;
        }
        let mut journal = Journal::new(operation, &request.execution, plan, steady, invocation.now());
        journal.approved_by = approved_by;
        desk.is_not_open(&journal).await?;
        desk.leave_there(&journal, invocation.now()).await?;
        desk.begin(&journal, request.started_at, invocation).await
    }

    /// Refuses what nobody could approve before anybody is asked.
    fn can_be_approved(&self, plan: &ExperimentPlan, now: Timestamp) -> Result<()> {
        if plan.approvals == 0 {
            return Ok(());
        }
        self.somebody_can_approve(&plan.experiment_id)?;
        approval::count(plan, &[], now).map(|_| ())
    }

    async fn approvals_of(
        &self,
        desk: &Desk<'_>,
        plan: &ExperimentPlan,
        operation: &OperationId,
        now: Timestamp,
    ) -> Result<BTreeSet<String>> {
        let pending: Option<Pending> = match plan.approvals {
            0 => None,
            _ => desk.table.read(&Pending::key(operation)).await?,
        };
        let now = pending.as_ref().map_or(now, |pending| pending.valid_at(now));
        let approvals = pending.map(|pending| pending.approvals).unwrap_or_default();
        let examined = self.examine(&approvals, operation).await?;
        approval::check(plan, &examined, now)
    }
}

impl Desk<'_> {
    /// Refuses an experiment while an earlier one of its name is not over: its execution may be, and gave its name back.
    async fn is_not_open(&self, journal: &Journal) -> Result<()> {
        let name = &journal.plan.experiment_id;
        for other in self.open().await?.0 {
            if other.plan.experiment_id != *name || other.owner == journal.owner {
                continue;
            }
            // The index is behind; what counts is the item.
            if let Some(earlier) = self.journal(&other.owner).await?.filter(Journal::is_open) {
                let (owner, phase) = (&earlier.owner, earlier.status.as_str());
                let what = format!("beginning {name}: {owner} has this name and is {phase}");
                return Err(DrError::new(ErrorName::OperationInProgress, what));
            }
        }
        Ok(())
    }

    /// Takes all locks and writes the journal, or neither.
    async fn begin(
        &self,
        journal: &Journal,
        started_at: Timestamp,
        invocation: &Invocation,
    ) -> Result<Standing> {
        for _ in 0..MOST_ATTEMPTS {
            let stop: Option<EmergencyStop> = self.table.read(EmergencyStop::KEY).await?;
            let locks = self.locks(journal).await?;
            let change = records::arm(journal, &locks, stop.as_ref(), started_at, invocation.now())?;
            if self.table.apply(&change).await? == Applied::Yes {
                return standing(journal, 0, "it begins");
            }
            // Another invocation for the same execution may have been quicker.
            if let Some(journal) = self.journal(&journal.owner).await? {
                return standing(&journal, 0, "it has begun");
            }
        }
        let what = format!("beginning {}: lost five races", journal.owner);
        Err(DrError::new(ErrorName::StateConflict, what))
    }

    /// Every lock that a journal needs, and whether its holder still works.
    pub(crate) async fn locks(&self, journal: &Journal) -> Result<BTreeMap<String, Held>> {
        let mut all = BTreeMap::new();
        for name in records::locks_of(&journal.plan, &self.region) {
            let lock: Option<Lock> = self.table.read(&Lock::key(&name)).await?;
            let holder = match &lock {
                Some(lock) if lock.owner == journal.owner => HolderState::Unknown,
                Some(lock) if records::is_of_journal(lock) => {
                    records::judge(self.journal(&lock.owner).await)?
                }
                // Only its own Region knows an execution: what another one says of it is not "it is over".
                Some(lock) if lock.owner_execution.region().as_ref() != Some(self.handler.clients.home()) => {
                    HolderState::Unknown
                }
                Some(lock) => self.handler.executions.holder_state(&lock.owner_execution).await,
                None => HolderState::Unknown,
            };
            all.insert(name, Held { lock, holder });
        }
        Ok(all)
    }
}

/// Refuses a database that does not carry the tag.
fn may_be_written_to(facts: &DatabaseFacts) -> Result<()> {
    if labels::has(&facts.tags, world::TAG, world::ALLOWED) {
        return Ok(());
    }
    let (tag, value) = (world::TAG, world::ALLOWED);
    let what = format!("looking into the data of {}: it does not carry the tag {tag} = {value}", facts.id);
    Err(DrError::new(ErrorName::TargetNotAllowed, what))
}

fn refuse(which: &str, plan: &ExperimentPlan, findings: &[Finding]) -> Result<()> {
    match first_fault(findings) {
        None => Ok(()),
        Some(fault) => {
            let what = format!("beginning {}: {which}: {fault}", plan.experiment_id);
            Err(DrError::new(ErrorName::PreCheckFailed, what))
        }
    }
}
