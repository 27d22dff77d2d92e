//! The resolved plan of an experiment: which change to which resource, what puts it back, and what must hold meanwhile.
//!
//! Two plans of the same request against the same world are equal, and so are their hashes: an approval is bound to
//! that hash, and a changed world needs a new one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::data::DataCheck;
use super::experiment::{ExperimentRequest, Family, Limits, Severity};
use super::fault::Fault;
use super::probe::Probe;
use super::put_back::Step;
use super::selection::{Guard, choose, healthy};
use super::world::{ALLOWED, Change, Facts, Resource, ResourceKind, State, TAG, Target};
use crate::error::{DrError, ErrorName, Result};
use crate::ids::{DatabaseId, OperationId, Region, hex};
use crate::labels;
use crate::observed::Observed;

/// How long one change may take until it is made or refused, seconds.
const CHANGE_SECONDS: u32 = 60;

/// The plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentPlan {
    /// The experiment's name.
    pub experiment_id: String,
    /// The family of its faults.
    #[serde(rename = "type")]
    pub family: Family,
    /// What is at stake.
    pub severity: Severity,
    /// The Region of all its resources.
    pub region: Region,
    /// What the choice of targets followed from.
    pub seed: String,
    /// Per cent.
    pub intensity: u8,
    /// The changes, in the order in which they are made.
    pub steps: Vec<Step>,
    /// What must stay healthy.
    pub guards: Vec<Guard>,
    /// How long the faults stay, seconds.
    pub duration_seconds: u32,
    /// How long the steady state may take to come back, seconds.
    pub recovery_seconds: u32,
    /// For how long "as it was" is not believed after a change, seconds.
    pub settling_seconds: u32,
    /// From the first change to the last thing put back, at worst, seconds.
    pub worst_case_seconds: u32,
    /// All must pass before.
    pub pre_checks: Vec<Probe>,
    /// What is normal.
    pub steady_state: Vec<Probe>,
    /// One that does not pass ends it.
    pub stop_conditions: Vec<Probe>,
    /// All must pass at the end.
    pub post_checks: Vec<Probe>,
    /// Compares the rows of a database before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_check: Option<DataCheck>,
    /// How many approvers it needs.
    pub approvals: u8,
    /// Who asked.
    pub requested_by: Option<String>,
    /// Who is told besides the installation's topics: names of `CHAOS_CHANNELS`.
    pub channels: BTreeSet<String>,
}

/// The most bytes of JSON that a plan may have: a journal holds its steps twice, and of each what was last done to put it back,
/// which is a part of it; an item of DynamoDB has 400 KB.
const LARGEST: usize = 150_000;
/// The most lines of a plan that people are shown; the whole of it is in the metadata bucket.
const MOST_LINES: usize = 60;

impl ExperimentPlan {
    /// SHA-256 of the plan, in hexadecimal: of its JSON with sorted names.
    ///
    /// # Errors
    /// [`ErrorName::Internal`] when it cannot be written as JSON.
    pub fn hash(&self) -> Result<String> {
        let value = serde_json::to_value(self).map_err(|error| {
            DrError::new(ErrorName::Internal, "writing an experiment's plan as JSON").with_source(error)
        })?;
        Ok(hex(&Sha256::digest(value.to_string())))
    }

    /// What is done to what and what undoes it, what must stay, and how long all of it takes at worst: for people, at most
    /// 60 lines.
    pub fn lines(&self) -> Vec<String> {
        let steps = self.steps.iter().enumerate().map(|(index, step)| {
            let change = step.change.command(&step.resource);
            let undo = match &step.undo {
                Some(undo) => format!("undone by `{}`", undo.command(&step.resource)),
                None => format!("nothing to undo: {} comes back by itself", step.watched),
            };
            let note = step.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
            format!("{}. `{change}`; {undo}, {} s at worst{note}", index + 1, step.undo_seconds)
        });
        let guards = self.guards.iter().map(Guard::line);
        let data = self.data_check.as_ref().map(|check| {
            let limit = match check.max_read_mebibytes_per_second {
                Some(limit) => format!("with at most {limit} MiB/s"),
                None => "as fast as it can be read".to_owned(),
            };
            format!("The database {} is read whole, {limit}, before the first change and after the last is undone.", check.database)
        });
        let time = format!(
            "The faults stay {} s; everything is put back after {} s at worst, and may need {} s more to recover.",
            self.duration_seconds, self.worst_case_seconds, self.recovery_seconds
        );
        let mut lines: Vec<String> = steps.chain(guards).collect();
        let more = lines.len().saturating_sub(MOST_LINES - 3);
        if more > 0 {
            lines.truncate(MOST_LINES - 3);
            lines.push(format!("and {more} more: see the whole plan"));
        }
        lines.extend(data);
        lines.push(time);
        lines
    }

    /// How many resources of each kind are changed, in words.
    pub fn blast_radius(&self) -> String {
        let mut kinds: BTreeMap<ResourceKind, BTreeSet<&str>> = BTreeMap::new();
        for step in &self.steps {
            kinds.entry(step.resource.kind).or_default().insert(&step.resource.id);
        }
        let words = kinds.iter().map(|(kind, ids)| format!("{} of the kind {kind}", ids.len()));
        format!("{} in {}", words.collect::<Vec<_>>().join(", "), self.region)
    }

    /// The databases in which its probes keep ledgers.
    pub fn ledgers(&self) -> BTreeSet<&DatabaseId> {
        let probes = [&self.pre_checks, &self.steady_state, &self.stop_conditions, &self.post_checks];
        probes
            .into_iter()
            .flatten()
            .filter_map(|probe| match probe {
                Probe::DataIntact { database } => Some(database),
                _ => None,
            })
            .collect()
    }

    /// Everything that is looked at while it runs.
    pub fn watched(&self) -> BTreeSet<Resource> {
        let pools = self.guards.iter().flat_map(|guard| guard.pool.iter().cloned());
        self.steps.iter().map(|step| step.watched.clone()).chain(pools).collect()
    }

    /// What is locked while it runs.
    pub fn touched(&self) -> BTreeSet<Resource> {
        self.steps.iter().flat_map(|step| [step.resource.clone(), step.watched.clone()]).collect()
    }
}

/// What was seen of the named resources.
pub type Seen = BTreeMap<Resource, Observed<Facts>>;

/// The resources that a plan needs to see: those that are named.
pub fn needed(request: &ExperimentRequest, limits: &Limits) -> BTreeSet<Resource> {
    request.faults().iter().flat_map(|fault| request.pool(fault, limits)).collect()
}

/// The resources that it needs to see besides, after these were seen: the groups that replace what is terminated.
pub fn needed_besides(seen: &Seen) -> BTreeSet<Resource> {
    seen.iter()
        .filter_map(|(resource, observed)| match observed {
            Observed::Found(Facts { state: State::Machine(machine), .. }) => Some(Resource {
                kind: ResourceKind::ScalingGroup,
                region: resource.region.clone(),
                id: machine.group.clone()?,
            }),
            _ => None,
        })
        .filter(|resource| !seen.contains_key(resource))
        .collect()
}

/// Resolves a request that was checked.
///
/// # Errors
/// [`ErrorName::TargetMissing`], [`ErrorName::TargetNotAllowed`], [`ErrorName::FaultImpossible`],
/// [`ErrorName::BlastRadiusExceeded`]; what kept us from looking at a target.
pub fn resolve(
    request: &ExperimentRequest,
    limits: &Limits,
    operation: &OperationId,
    seen: &Seen,
) -> Result<ExperimentPlan> {
    let parameters = &request.parameters;
    let drawn_by = parameters.seed.clone().unwrap_or_else(|| operation.to_string());
    let mut steps = Vec::new();
    let mut guards = Vec::new();
    for fault in request.faults() {
        let pool = request.pool(&fault, limits);
        for resource in &pool {
            allowed(resource, facts(seen, resource)?, limits)?;
        }
        let first = steps.len();
        for (resource, targets) in affected(&fault, &pool, seen, parameters.intensity, &drawn_by)? {
            let step = step(&fault, resource, &targets, seen)?;
            // What puts it back is asked for on the group, by IAM too.
            allowed(&step.watched, facts(seen, &step.watched)?, limits)?;
            steps.push(step);
        }
        let minimum = parameters.minimum_healthy.unwrap_or_else(|| spared(fault.kind()));
        let steps = steps.get(first..).unwrap_or_default();
        match fault.kind() {
            // Each of them serves something of its own: what stays healthy elsewhere does not help it.
            ResourceKind::ScalingGroup | ResourceKind::TargetGroup => {
                for resource in pool {
                    let own: Vec<&Step> = steps.iter().filter(|step| step.resource == resource).collect();
                    guards.push(guard(vec![resource], minimum, &own, seen)?);
                }
            }
            _ => guards.push(guard(pool, minimum, &steps.iter().collect::<Vec<_>>(), seen)?),
        }
    }
    guards.iter().try_for_each(Guard::check)?;
    let duration_seconds = seconds(parameters.duration.div_ceil(1_000));
    let changes = CHANGE_SECONDS.saturating_mul(seconds(steps.len() as u64));
    let undo = steps.iter().map(|step| step.undo_seconds).max().unwrap_or(0);
    let worst = changes.saturating_mul(2).saturating_add(duration_seconds).saturating_add(undo);
    let plan = ExperimentPlan {
        experiment_id: request.id.clone(),
        family: request.family,
        severity: request.severity,
        region: request.region(limits).clone(),
        seed: drawn_by,
        intensity: parameters.intensity,
        steps,
        guards,
        duration_seconds,
        recovery_seconds: parameters.recovery_seconds,
        settling_seconds: limits.settling_seconds,
        worst_case_seconds: worst,
        pre_checks: request.pre_checks.clone(),
        steady_state: request.steady_state.clone(),
        stop_conditions: request.stop_conditions.clone(),
        post_checks: request.post_checks.clone(),
        data_check: request.data_check.clone(),
        approvals: request.approvals_needed(limits),
        requested_by: request.requested_by.clone(),
        channels: parameters.notification_channels.clone(),
    };
    let size = serde_json::to_vec(&plan).map_or(usize::MAX, |json| json.len());
    if size > LARGEST {
        let what = format!("planning {}: {size} bytes of {LARGEST} possible", request.id);
        let remedy = "Name fewer resources, or start several experiments.";
        return Err(DrError::new(ErrorName::InvalidInput, what).with_remedy(remedy));
    }
    Ok(plan)
}

fn seconds(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// How many of a pool stay healthy unless the experiment says otherwise. A single database has no substitute.
const fn spared(kind: ResourceKind) -> u32 {
    match kind {
        ResourceKind::Ec2Instance | ResourceKind::ScalingGroup | ResourceKind::TargetGroup => 1,
        ResourceKind::DbInstance
        | ResourceKind::DbCluster
        | ResourceKind::Function
        | ResourceKind::Region => 0,
    }
}

fn facts<'a>(seen: &'a Seen, resource: &Resource) -> Result<&'a Facts> {
    match seen.get(resource) {
        Some(Observed::Found(facts)) => Ok(facts),
        Some(Observed::Missing) => {
            Err(DrError::new(ErrorName::TargetMissing, format!("looking for {resource}")))
        }
        Some(Observed::Unreachable(error)) => {
            Err(DrError::new(error.name(), format!("looking for {resource}: {}", error.what())))
        }
        None => {
            Err(DrError::new(ErrorName::Internal, format!("planning without having looked at {resource}")))
        }
    }
}

/// Refuses what does not carry the tag and is not listed, and what Lifeboat itself made for a proof.
fn allowed(resource: &Resource, facts: &Facts, limits: &Limits) -> Result<()> {
    let refuse =
        |why: &str| Err(DrError::new(ErrorName::TargetNotAllowed, format!("planning for {resource}: {why}")));
    if facts.tags.contains_key(labels::ROLE) {
        return refuse("Lifeboat made it for a proof");
    }
    let name = facts.arn.rsplit(":function:").next().unwrap_or(&facts.arn);
    if resource.kind == ResourceKind::Function
        && limits.own_functions.as_ref().is_some_and(|own| name.starts_with(own.as_str()))
    {
        return refuse("it is one of this stack's functions, which put everything back");
    }
    let listed = limits.listed.contains(&(resource.kind, resource.id.clone()));
    if resource.kind == ResourceKind::Region || listed || labels::has(&facts.tags, TAG, ALLOWED) {
        return Ok(());
    }
    refuse(&format!("it does not carry the tag {TAG} = {ALLOWED}"))
}

/// Which resources of a pool a fault happens to and, of target groups, to which of their targets.
fn affected<'a>(
    fault: &Fault,
    pool: &'a [Resource],
    seen: &Seen,
    intensity: u8,
    drawn_by: &str,
) -> Result<Vec<(&'a Resource, BTreeSet<Target>)>> {
    let target_name = |target: &Target| format!("{}:{}", target.id, target.port.unwrap_or_default());
    match fault {
        Fault::TargetsDeregister {} | Fault::ZoneDrain { .. } => pool
            .iter()
            .map(|resource| {
                let State::TargetGroup(group) = &facts(seen, resource)?.state else {
                    return Ok((resource, BTreeSet::new()));
                };
                let registered: Vec<Target> = group.registered.iter().cloned().collect();
                let chosen = match fault {
                    Fault::ZoneDrain { zone } => {
                        registered.iter().filter(|target| target.zone.as_ref() == Some(zone)).collect()
                    }
                    _ => choose(&registered, intensity, drawn_by, target_name),
                };
                Ok((resource, chosen.into_iter().cloned().collect()))
            })
            .collect(),
        _ => {
            let chosen = choose(pool, intensity, drawn_by, ToString::to_string);
            Ok(chosen.into_iter().map(|resource| (resource, BTreeSet::new())).collect())
        }
    }
}

fn step(fault: &Fault, resource: &Resource, targets: &BTreeSet<Target>, seen: &Seen) -> Result<Step> {
    let found = facts(seen, resource)?;
    let injection = fault.inject(resource, &found.state, targets)?;
    let recorded = facts(seen, &injection.watched)?.state.clone();
    if let (Change::TerminateEc2Instance { .. }, State::ScalingGroup(group)) = (&injection.change, &recorded)
        && group.suspended.contains("Launch")
    {
        let (name, group) = (fault.name(), &injection.watched);
        let what = format!(
            "planning {name} on {resource}: {group} launches no other one, its process Launch is suspended"
        );
        return Err(DrError::new(ErrorName::FaultImpossible, what));
    }
    Ok(Step {
        fault: fault.clone(),
        resource: resource.clone(),
        arn: found.arn.clone(),
        watched: injection.watched,
        recorded,
        change: injection.change,
        undo: injection.undo,
        undo_seconds: injection.undo_seconds,
        note: injection.note.map(ToOwned::to_owned),
    })
}

fn guard(pool: Vec<Resource>, minimum: u32, steps: &[&Step], seen: &Seen) -> Result<Guard> {
    let mut before = 0_u32;
    for resource in &pool {
        before = before.saturating_add(healthy(Some(&facts(seen, resource)?.state)));
    }
    let mut taken = 0_u32;
    for step in steps {
        let state = &facts(seen, &step.resource)?.state;
        let lost = match (&step.change, state) {
            (Change::DeregisterTargets { targets }, State::TargetGroup(group)) => {
                seconds(targets.intersection(&group.healthy).count() as u64)
            }
            (Change::SetCapacity { desired, .. }, State::ScalingGroup(group)) => {
                seconds(group.in_service.len() as u64).saturating_sub(*desired)
            }
            (Change::SuspendProcesses { .. }, _) => 0,
            (_, state) => healthy(Some(state)),
        };
        taken = taken.saturating_add(lost);
    }
    Ok(Guard { pool, minimum, before, taken })
}
