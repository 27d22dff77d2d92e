//! What a user asks for: the input of `chaos_experiment`.
//!
//! Strict as every input, and without code: checks are probes, and what happens is a list of named faults.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::data::DataCheck;
use super::fault::Fault;
use super::freeze::Window;
use super::probe::Probe;
use super::world::{Resource, ResourceKind};
use crate::error::{DrError, ErrorName, Result};
use crate::ids::Region;

/// The most resources of one kind that an experiment names.
const MOST_RESOURCES: usize = 50;
/// The most probes of one kind.
const MOST_PROBES: usize = 10;

/// What family of faults an experiment is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Databases.
    Database,
    /// EC2 instances and Auto Scaling groups.
    Infrastructure,
    /// Target groups and security groups.
    Network,
    /// Anything in one Region, together.
    Regional,
    /// Functions.
    Application,
}

impl Family {
    /// Whether faults of a kind of resource belong to it.
    fn covers(self, fault: &Fault) -> bool {
        let network = matches!(
            fault,
            Fault::TargetsDeregister {}
                | Fault::ZoneDrain { .. }
                | Fault::SecurityGroupDetach { .. }
                | Fault::SecurityGroupIsolate { .. }
        );
        match (self, fault.kind()) {
            (Self::Regional, _)
            | (Self::Database, ResourceKind::DbInstance | ResourceKind::DbCluster)
            | (Self::Application, ResourceKind::Function) => true,
            (Self::Infrastructure, ResourceKind::Ec2Instance | ResourceKind::ScalingGroup) => !network,
            (Self::Network, _) => network,
            _ => false,
        }
    }
}

/// How much is at stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nobody notices.
    Low,
    /// A short interruption.
    Medium,
    /// A longer one.
    High,
    /// Needs an approval.
    Critical,
}

/// The resources that an experiment names. Nothing else is touched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TargetResources {
    /// DB instances.
    pub rds_instances: BTreeSet<String>,
    /// DB clusters.
    pub rds_clusters: BTreeSet<String>,
    /// EC2 instances, `i-…`.
    pub ec2_instances: BTreeSet<String>,
    /// Auto Scaling groups.
    pub auto_scaling_groups: BTreeSet<String>,
    /// ARNs of target groups.
    pub target_groups: BTreeSet<String>,
    /// Functions.
    pub functions: BTreeSet<String>,
    /// The Region of all of them: at most one. The installation's own when absent.
    pub regions: BTreeSet<Region>,
}

/// How an experiment is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameters {
    /// How long the faults stay, milliseconds: 10,000 up to the installation's limit.
    pub duration: u64,
    /// How much of what is named is affected, per cent: 1 to 100.
    pub intensity: u8,
    /// Must be true: what is not put back is not begun.
    #[serde(default = "yes")]
    pub automatic_rollback: bool,
    /// Whom to tell besides the installation's topics: names of `CHAOS_CHANNELS`.
    #[serde(default)]
    pub notification_channels: BTreeSet<String>,
    /// Asks for an approval also where severity and type do not.
    #[serde(default)]
    pub approval_required: bool,
    /// How many approvers, where an approval is needed: 1 to 5, and at least as many as the installation asks for.
    #[serde(default = "one")]
    pub approvals: u8,
    /// How many of each pool must stay healthy: 1 by default for machines, groups and targets, 0 for what has no
    /// substitute (databases, functions, Regions).
    #[serde(default)]
    pub minimum_healthy: Option<u32>,
    /// How long the steady state may take to come back after everything is put back, seconds: 10 to 3,600.
    #[serde(default = "a_quarter")]
    pub recovery_seconds: u32,
    /// What the choice of targets follows from, 1 to 64 characters; the operation's id when absent.
    #[serde(default)]
    pub seed: Option<String>,
}

const fn yes() -> bool {
    true
}

const fn one() -> u8 {
    1
}

const fn a_quarter() -> u32 {
    900
}

/// What is done when an experiment ends, in whatever way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RollbackAction {
    /// Puts back every change, the last one first.
    UndoFaults {},
}

/// The input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExperimentRequest {
    /// A name that the user gives: letters, digits, `-` and `_`, at most 64.
    pub id: String,
    /// A title, 1 to 120 characters.
    pub name: String,
    /// What is expected, at most 2,000 characters.
    #[serde(default)]
    pub description: String,
    /// The family of its faults.
    #[serde(rename = "type")]
    pub family: Family,
    /// What is at stake.
    pub severity: Severity,
    /// What may be touched.
    pub target_resources: TargetResources,
    /// What happens, in this order. Of type `database` alone it may be left out: a failover of what is named.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// How.
    pub parameters: Parameters,
    /// All must pass, or nothing is touched.
    #[serde(default)]
    pub pre_checks: Vec<Probe>,
    /// What is normal. Asked before, during and after.
    #[serde(default)]
    pub steady_state: Vec<Probe>,
    /// The experiment ends as soon as one of these does not pass.
    #[serde(default)]
    pub stop_conditions: Vec<Probe>,
    /// All must pass at the end.
    #[serde(default)]
    pub post_checks: Vec<Probe>,
    /// Compares the rows of a database before and after.
    #[serde(default)]
    pub data_check: Option<DataCheck>,
    /// Must be given.
    #[serde(default)]
    pub rollback_plan: Vec<RollbackAction>,
    /// Only plans. The installation's `CHAOS_DRY_RUN` when absent.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// Who asks. Needed where an approval is.
    #[serde(default)]
    pub requested_by: Option<String>,
}

/// What the installation allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The Region in which the stack is.
    pub home: Region,
    /// The Regions that experiments may name.
    pub regions: BTreeSet<Region>,
    /// The longest experiment.
    pub longest: SignedDuration,
    /// Resources that need no tag (`CHAOS_EC2_IDS`, `CHAOS_ASG_NAMES`), by kind and id.
    pub listed: BTreeSet<(ResourceKind, String)>,
    /// Names of notification channels.
    pub channels: BTreeSet<String>,
    /// Hosts that may be probed.
    pub probe_hosts: Vec<String>,
    /// When nothing begins.
    pub freeze: Vec<Window>,
    /// The fewest approvers.
    pub approvals: u8,
    /// Whether an experiment only plans unless it says otherwise.
    pub dry_run: bool,
    /// For how long "as it was" is not believed after a change, seconds: AWS's answers are eventually consistent.
    pub settling_seconds: u32,
    /// Whether our own functions may be kept from calling a Region.
    pub region_fault: bool,
    /// How the names of this stack's own functions begin, `<stack>-`; nothing happens to those.
    pub own_functions: Option<String>,
}

impl ExperimentRequest {
    /// Checks everything that can be told without looking at the world.
    ///
    /// # Errors
    /// [`ErrorName::InvalidInput`] with the field and the rule, [`ErrorName::RegionUnknown`],
    /// [`ErrorName::RollbackMissing`], [`ErrorName::TargetNotAllowed`] for a fault that the installation does not use.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        let fault = |rule: String| {
            Err(DrError::new(ErrorName::InvalidInput, format!("reading the experiment: {rule}")))
        };
        let named = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !(1..=64).contains(&self.id.len()) || !named(&self.id) {
            return fault("`id` needs 1 to 64 letters, digits, `-` or `_`".to_owned());
        }
        if !(1..=120).contains(&self.name.chars().count()) || self.description.chars().count() > 2_000 {
            return fault("`name` needs 1 to 120 characters, `description` at most 2000".to_owned());
        }
        let parameters = &self.parameters;
        let longest = u64::try_from(limits.longest.as_millis()).unwrap_or(u64::MAX);
        if !(10_000..=longest).contains(&parameters.duration) {
            return fault(format!("`parameters.duration` must be 10000 to {longest} milliseconds"));
        }
        if !(1..=100).contains(&parameters.intensity) {
            return fault("`parameters.intensity` must be 1 to 100".to_owned());
        }
        if !(1..=5).contains(&parameters.approvals) {
            return fault("`parameters.approvals` must be 1 to 5".to_owned());
        }
        if !(10..=3_600).contains(&parameters.recovery_seconds) {
            return fault("`parameters.recoverySeconds` must be 10 to 3600".to_owned());
        }
        if parameters.seed.as_ref().is_some_and(|seed| !(1..=64).contains(&seed.chars().count())) {
            return fault("`parameters.seed` needs 1 to 64 characters".to_owned());
        }
        if !parameters.notification_channels.is_subset(&limits.channels) {
            return fault(
                "`parameters.notificationChannels` names one that is not in CHAOS_CHANNELS".to_owned(),
            );
        }
        if self.requested_by.as_ref().is_some_and(|by| !(1..=256).contains(&by.len())) {
            return fault("`requestedBy` needs 1 to 256 characters".to_owned());
        }
        if !parameters.automatic_rollback || self.rollback_plan.is_empty() {
            let field = if parameters.automatic_rollback {
                "`rollbackPlan` is empty"
            } else {
                "`parameters.automaticRollback` is off"
            };
            let what = format!("reading experiment {}: {field}", self.id);
            return Err(DrError::new(ErrorName::RollbackMissing, what));
        }
        self.check_targets(limits)?;
        for (field, probes) in [
            ("preChecks", &self.pre_checks),
            ("steadyState", &self.steady_state),
            ("stopConditions", &self.stop_conditions),
            ("postChecks", &self.post_checks),
        ] {
            if probes.len() > MOST_PROBES {
                return fault(format!("`{field}` has more than {MOST_PROBES} probes"));
            }
            probes.iter().try_for_each(|probe| probe.check(&limits.probe_hosts))?;
        }
        match &self.data_check {
            Some(check) => check.check(self.region(limits), limits),
            None => Ok(()),
        }
    }

    fn check_targets(&self, limits: &Limits) -> Result<()> {
        let fault = |rule: String| {
            Err(DrError::new(ErrorName::InvalidInput, format!("reading the experiment: {rule}")))
        };
        let targets = &self.target_resources;
        if targets.regions.len() > 1 {
            return fault(
                "`targetResources.regions` names more than one; start one experiment for each".to_owned(),
            );
        }
        if let Some(region) = targets.regions.iter().find(|region| !limits.regions.contains(*region)) {
            return Err(DrError::new(
                ErrorName::RegionUnknown,
                format!("reading the experiment: `targetResources.regions`: {region}"),
            ));
        }
        let faults = self.faults();
        if faults.is_empty() {
            return fault("`faults` is empty".to_owned());
        }
        for kind in [
            ResourceKind::DbInstance,
            ResourceKind::DbCluster,
            ResourceKind::Ec2Instance,
            ResourceKind::ScalingGroup,
            ResourceKind::TargetGroup,
            ResourceKind::Function,
        ] {
            let ids = targets.ids(kind);
            if ids.len() > MOST_RESOURCES {
                return fault(format!(
                    "`targetResources` names more than {MOST_RESOURCES} of the kind {kind}"
                ));
            }
            let fits = |id: &&String| {
                (1..=256).contains(&id.len())
                    && id.chars().all(|c| c.is_ascii_graphic())
                    && !id.starts_with('-')
            };
            if !ids.iter().all(|id| fits(&id)) {
                return fault(format!("`targetResources`: an id of the kind {kind} cannot be one"));
            }
            if !ids.is_empty() && !faults.iter().any(|fault| fault.kind() == kind) {
                return fault(format!("`targetResources` names a {kind} that no fault happens to"));
            }
        }
        for one in &faults {
            if one.kind() == ResourceKind::Region && !limits.region_fault {
                let what = format!("planning {}: this installation does not use it", one.name());
                return Err(DrError::new(ErrorName::TargetNotAllowed, what)
                    .with_remedy("Set the stack's parameter ChaosRegionFault to true, if it may be used."));
            }
            if !self.family.covers(one) {
                return fault(format!("`faults`: {} is not of the type that the experiment has", one.name()));
            }
            if one.kind() != ResourceKind::Region && targets.ids(one.kind()).is_empty() {
                return fault(format!(
                    "`faults`: {} happens to the kind {}, and `targetResources` names none",
                    one.name(),
                    one.kind()
                ));
            }
            let again = |other: &&Fault| other.kind() == one.kind();
            if faults.iter().filter(again).count() > 1 {
                return fault(format!("`faults`: two happen to the kind {}", one.kind()));
            }
        }
        Ok(())
    }

    /// The faults, the ones that are meant by leaving them out included.
    pub fn faults(&self) -> Vec<Fault> {
        if !self.faults.is_empty() || self.family != Family::Database {
            return self.faults.clone();
        }
        let targets = &self.target_resources;
        let instances =
            (!targets.rds_instances.is_empty()).then_some(Fault::RdsFailover { fail_back: false });
        let clusters =
            (!targets.rds_clusters.is_empty()).then_some(Fault::ClusterFailover { fail_back: false });
        instances.into_iter().chain(clusters).collect()
    }

    /// Where everything is.
    pub fn region<'a>(&'a self, limits: &'a Limits) -> &'a Region {
        self.target_resources.regions.first().unwrap_or(&limits.home)
    }

    /// The resources that a fault may happen to.
    pub fn pool(&self, fault: &Fault, limits: &Limits) -> Vec<Resource> {
        let region = self.region(limits);
        let one = |id: &str| Resource { kind: fault.kind(), region: region.clone(), id: id.to_owned() };
        match fault.kind() {
            ResourceKind::Region => vec![one(region.as_str())],
            kind => self.target_resources.ids(kind).iter().map(|id| one(id)).collect(),
        }
    }

    /// Whether it only plans.
    pub fn only_plans(&self, limits: &Limits) -> bool {
        self.dry_run.unwrap_or(limits.dry_run)
    }

    /// How many approvers it needs; none for most.
    pub fn approvals_needed(&self, limits: &Limits) -> u8 {
        let needed = self.severity == Severity::Critical
            || self.family == Family::Regional
            || self.parameters.approval_required;
        if needed { self.parameters.approvals.max(limits.approvals).max(1) } else { 0 }
    }
}

impl TargetResources {
    fn ids(&self, kind: ResourceKind) -> &BTreeSet<String> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        match kind {
            ResourceKind::DbInstance => &self.rds_instances,
            ResourceKind::DbCluster => &self.rds_clusters,
            ResourceKind::Ec2Instance => &self.ec2_instances,
            ResourceKind::ScalingGroup => &self.auto_scaling_groups,
            ResourceKind::TargetGroup => &self.target_groups,
            ResourceKind::Function => &self.functions,
            ResourceKind::Region => &NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::{Value, json};

    fn limits() -> Limits {
        Limits {
            home: Region::parse("us-east-1").unwrap(),
            regions: ["us-east-1", "eu-west-1"].map(|region| Region::parse(region).unwrap()).into(),
            longest: SignedDuration::from_hours(1),
            listed: BTreeSet::new(),
            channels: ["slack-critical".to_owned()].into(),
            probe_hosts: vec!["orders.example.com".to_owned()],
            freeze: Vec::new(),
            approvals: 1,
            dry_run: true,
            settling_seconds: 30,
            region_fault: true,
            own_functions: None,
        }
    }

    /// The first example of the guide, with probes for its functions.
    fn example() -> Value {
        json!({
            "id": "db-failover-test-001", "name": "RDS Multi-AZ Failover Test",
            "description": "Test database failover capabilities", "type": "database", "severity": "medium",
            "targetResources": {"rdsInstances": ["prod-db"]},
            "parameters": {"duration": 300_000, "intensity": 50, "automaticRollback": true,
                "notificationChannels": ["slack-critical"], "approvalRequired": false},
            "preChecks": [{"probe": "backups-exist", "database": "prod-db", "withinHours": 12},
                {"probe": "replication-lag-below", "database": "prod-db", "seconds": 60}],
            "postChecks": [{"probe": "latest-snapshot-proven", "database": "prod-db"},
                {"probe": "health-is", "database": "prod-db", "atWorst": "healthy"}],
            "rollbackPlan": [{"action": "undo-faults"}]
        })
    }

    fn read(value: Value) -> Result<ExperimentRequest> {
        let request: ExperimentRequest = crate::input::parse("the experiment", value)?;
        request.check(&limits())?;
        Ok(request)
    }

    #[test]
    fn the_guides_example_is_a_failover_that_only_plans_until_it_is_told_otherwise() {
        let request = read(example()).unwrap();
        assert_eq!(request.faults(), [Fault::RdsFailover { fail_back: false }]);
        assert!(request.only_plans(&limits()));
        assert_eq!(request.approvals_needed(&limits()), 0);
    }

    #[test]
    fn bad_input_is_refused_by_name() {
        use ErrorName as E;
        let cases: Vec<(E, &str, Value)> = vec![
            (E::InvalidInput, "/id", json!("two words")),
            (E::InvalidInput, "/name", json!("")),
            (E::InvalidInput, "/type", json!("human")),
            (E::InvalidInput, "/severity", json!("mild")),
            (E::InvalidInput, "/parameters/duration", json!(9_999)),
            (E::InvalidInput, "/parameters/duration", json!(3_600_001)),
            (E::InvalidInput, "/parameters/intensity", json!(0)),
            (E::InvalidInput, "/parameters/intensity", json!(101)),
            (E::InvalidInput, "/parameters/approvals", json!(6)),
            (E::InvalidInput, "/parameters/seed", json!("")),
            (E::InvalidInput, "/parameters/notificationChannels", json!(["nobody"])),
            (E::InvalidInput, "/parameters/force", json!(true)),
            (E::RollbackMissing, "/parameters/automaticRollback", json!(false)),
            (E::RollbackMissing, "/rollbackPlan", json!([])),
            (E::InvalidInput, "/rollbackPlan", json!([{"action": "hope"}])),
            (E::InvalidInput, "/faults", json!([{"fault": "meteor"}])),
            (E::InvalidInput, "/faults", json!([{"fault": "rds-stop", "hard": true}])),
            (E::InvalidInput, "/faults", json!([{"fault": "ec2-stop"}])),
            (E::InvalidInput, "/faults", json!([{"fault": "rds-stop"}, {"fault": "rds-reboot"}])),
            (E::InvalidInput, "/targetResources", json!({})),
            (E::InvalidInput, "/targetResources", json!({"rdsInstances": []})),
            (E::InvalidInput, "/targetResources", json!({"rdsInstances": ["a b"]})),
            (E::InvalidInput, "/targetResources", json!({"rdsInstances": ["--all"]})),
            (E::InvalidInput, "/targetResources", json!({"rdsInstances": ["prod-db"], "functions": ["x"]})),
            (E::RegionUnknown, "/targetResources/regions", json!(["ap-south-1"])),
            (E::InvalidInput, "/targetResources/regions", json!(["us-east-1", "eu-west-1"])),
            (E::InvalidInput, "/preChecks", json!([{"probe": "shell", "run": "id"}])),
            (E::InvalidInput, "/preChecks/0/withinHours", json!(0)),
            (
                E::InvalidInput,
                "/stopConditions",
                json!([{"probe": "http", "url": "http://orders.example.com/"}]),
            ),
            (
                E::InvalidInput,
                "/stopConditions",
                json!([{"probe": "http", "url": "https://169.254.169.254/"}]),
            ),
            (
                E::InvalidInput,
                "/stopConditions",
                json!([{"probe": "http", "url": "https://orders.example.com@evil.example/"}]),
            ),
            (E::InvalidInput, "/requestedBy", json!("")),
            (E::InvalidInput, "/dataCheck", json!({})),
            (E::InvalidInput, "/dataCheck", json!({"database": "orders", "connections": 9})),
            (E::InvalidInput, "/dataCheck", json!({"database": "orders", "depth": "quick"})),
        ];
        for (expected, path, value) in cases {
            let mut input = example();
            let (parent, field) = path.rsplit_once('/').unwrap();
            input.pointer_mut(parent).unwrap()[field] = value.clone();
            let error = read(input).unwrap_err();
            assert_eq!(error.name(), expected, "{path} = {value}: {error}");
        }
        let mut elsewhere = example();
        elsewhere["dataCheck"] = json!({"database": "orders"});
        assert!(read(elsewhere.clone()).is_ok());
        elsewhere["targetResources"]["regions"] = json!(["eu-west-1"]);
        assert_eq!(read(elsewhere).unwrap_err().name(), E::InvalidInput);
        let mut allowed = example();
        allowed["stopConditions"] =
            json!([{"probe": "http", "url": "https://orders.example.com/health?deep=1"}]);
        assert!(read(allowed).is_ok());
    }

    #[test]
    fn what_is_critical_regional_or_says_so_needs_an_approval() {
        let mut critical = example();
        critical["severity"] = json!("critical");
        let mut asked = example();
        asked["parameters"]["approvalRequired"] = json!(true);
        let mut regional = example();
        regional["type"] = json!("regional");
        regional["targetResources"]["regions"] = json!(["us-east-1"]);
        regional["faults"] = json!([{"fault": "rds-failover"}, {"fault": "region-unreachable"}]);
        for input in [critical, asked, regional] {
            let request = read(input).unwrap();
            assert_eq!(request.approvals_needed(&limits()), 1);
            let strict = Limits { approvals: 2, ..limits() };
            assert_eq!(
                request.approvals_needed(&strict),
                2,
                "a request cannot ask for fewer than the installation"
            );
        }
    }
}
