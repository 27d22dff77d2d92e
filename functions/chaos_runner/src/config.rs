//! The function's configuration.

use std::collections::{BTreeMap, BTreeSet};

use dr_core::Result;
use dr_core::chaos::experiment::Limits;
use dr_core::chaos::freeze;
use dr_core::chaos::world::ResourceKind;
use dr_core::config::{self, Parsed, Vars};
use dr_core::ids::{KmsKeyId, Region};
use jiff::SignedDuration;

/// How long a state may wait for approvals, minutes: a day.
const APPROVAL_MINUTES: u32 = 1_440;

/// The function's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state table.
    pub table: String,
    /// The bucket for plans and reports.
    pub bucket: String,
    /// What the installation allows.
    pub limits: Limits,
    /// With what approvals are signed.
    pub approval_keys: ApprovalKeys,
    /// How long is waited for approvals, seconds.
    pub approval_seconds: u32,
    /// Topics of the installation.
    pub topics: Topics,
    /// ARNs of the topics that experiments may name.
    pub channels: BTreeMap<String, String>,
    /// The function that judges health.
    pub health_check: Option<String>,
    /// The function that keeps ledgers in databases.
    pub validate_backup: Option<String>,
    /// The function that records operations.
    pub update_state: Option<String>,
    /// PEM of authorities that are trusted by HTTP probes, besides the system's.
    pub probe_ca_file: Option<String>,
    /// The Region and the table whose experiments are watched besides: this is a standby's stack.
    pub home: Option<(Region, String)>,
}

/// ARNs of the installation's topics.
#[derive(Debug, Clone)]
pub struct Topics {
    /// A person must act now.
    pub critical: String,
    /// A person should look, or is asked something.
    pub warning: String,
    /// What went well.
    pub info: String,
}

/// With what approvals are signed: one key for each approver, because a key that several have does not tell who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalKeys {
    /// Nobody can approve.
    None,
    /// A secret with a key in hexadecimal for each approver's name.
    Secret(String),
    /// An HMAC key of KMS for each approver's name, in lower case.
    Kms(BTreeMap<String, KmsKeyId>),
}

impl Config {
    /// Reads the configuration from the environment.
    ///
    /// # Errors
    /// [`dr_core::ErrorName::InvalidConfiguration`] with every fault.
    pub fn read(mut vars: Vars<'_>, home: &Region) -> Result<Self> {
        let table = vars.required("DR_STATE_TABLE_NAME", config::text);
        let bucket = vars.required("DR_METADATA_BUCKET", config::text);
        let targets: Vec<Region> = vars.list("DR_TARGET_REGIONS", config::id);
        let critical = vars.required("DR_CRITICAL_TOPIC_ARN", config::text);
        let warning = vars.required("DR_WARNING_TOPIC_ARN", config::text);
        let info = vars.required("DR_INFO_TOPIC_ARN", config::text);
        let channels = vars.optional("CHAOS_CHANNELS", pairs).unwrap_or_default();
        let minutes = vars.or_else("CHAOS_MAX_DURATION_MINUTES", config::number(1..=120), 60);
        let limits = Limits {
            home: home.clone(),
            regions: targets.into_iter().chain([home.clone()]).collect(),
            longest: SignedDuration::from_mins(minutes),
            listed: listed(&mut vars),
            channels: channels.keys().cloned().collect(),
            probe_hosts: vars.list("CHAOS_PROBE_HOSTS", config::text),
            freeze: vars.optional("CHAOS_FREEZE_WINDOWS", windows).unwrap_or_default(),
            approvals: vars.or_else("CHAOS_APPROVALS", config::number(1..=5), 1),
            dry_run: vars.or_else("CHAOS_DRY_RUN", config::boolean, true),
            settling_seconds: vars.or_else("CHAOS_SETTLING_SECONDS", config::number(1..=300), 30),
            region_fault: vars.or_else("CHAOS_REGION_FAULT", config::boolean, false),
            own_functions: vars
                .optional("AWS_LAMBDA_FUNCTION_NAME", config::text)
                .map(|name| name.strip_suffix("chaos-runner").map_or_else(|| name.clone(), str::to_owned)),
        };
        let approval_keys = vars.optional("CHAOS_APPROVAL_KEY", keys).unwrap_or(ApprovalKeys::None);
        let wait = config::number(1..=APPROVAL_MINUTES);
        let approval_seconds = 60 * vars.or_else("CHAOS_APPROVAL_MINUTES", wait, APPROVAL_MINUTES);
        let health_check = vars.optional("CHAOS_HEALTH_CHECK_FUNCTION", config::text);
        let validate_backup = vars.optional("CHAOS_VALIDATE_BACKUP_FUNCTION", config::text);
        let update_state = vars.optional("CHAOS_UPDATE_STATE_FUNCTION", config::text);
        let probe_ca_file = vars.optional("CHAOS_PROBE_CA_FILE", config::text);
        let watched = config::home(&mut vars, "DR_HOME_REGION", "DR_HOME_STATE_TABLE_NAME");
        vars.build(|| {
            Some(Self {
                table: table?,
                bucket: bucket?,
                limits,
                approval_keys,
                approval_seconds,
                topics: Topics { critical: critical?, warning: warning?, info: info? },
                channels,
                health_check,
                validate_backup,
                update_state,
                probe_ca_file,
                home: watched,
            })
        })
    }
}

/// Resources that need no tag.
fn listed(vars: &mut Vars<'_>) -> BTreeSet<(ResourceKind, String)> {
    let lists = [
        ("CHAOS_EC2_IDS", ResourceKind::Ec2Instance),
        ("CHAOS_ASG_NAMES", ResourceKind::ScalingGroup),
        ("CHAOS_TARGET_GROUP_ARNS", ResourceKind::TargetGroup),
        ("CHAOS_FUNCTION_NAMES", ResourceKind::Function),
    ];
    let mut all = BTreeSet::new();
    for (name, kind) in lists {
        all.extend(vars.list(name, config::text).into_iter().map(|id| (kind, id)));
    }
    all
}

/// A list `name=value,name=value`. A name twice is a fault.
fn pairs(text: &str) -> Parsed<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, value) =
            item.split_once('=').ok_or_else(|| format!("`{item}` is not written `name=value`"))?;
        if all.insert(name.trim().to_owned(), value.trim().to_owned()).is_some() {
            return Err(format!("`{}` is named twice", name.trim()));
        }
    }
    Ok(all)
}

fn windows(text: &str) -> Parsed<Vec<freeze::Window>> {
    freeze::parse(text).map_err(|error| error.what().to_owned())
}

fn keys(text: &str) -> Parsed<ApprovalKeys> {
    if text.split(':').nth(2) == Some("secretsmanager") && !text.contains([',', '=']) {
        return Ok(ApprovalKeys::Secret(text.to_owned()));
    }
    let rule = "it is the ARN of a secret, or a list `approver=<KMS key>`: a single key for all would not tell who signed";
    let mut keys = BTreeMap::new();
    for (name, key) in pairs(text).map_err(|_| rule.to_owned())? {
        if keys.insert(name.to_lowercase(), config::id(&key)?).is_some() {
            return Err(format!("`{name}` is named twice: case does not make two approvers of one"));
        }
    }
    Ok(ApprovalKeys::Kms(keys))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use dr_core::ErrorName;

    fn read(name: &'static str, value: &'static str) -> Result<Config> {
        let home = Region::parse("us-east-1").unwrap();
        let vars = Vars::new(move |asked| {
            let value = match asked {
                _ if asked == name => value,
                "DR_STATE_TABLE_NAME" | "DR_METADATA_BUCKET" => "records",
                "DR_CRITICAL_TOPIC_ARN" | "DR_WARNING_TOPIC_ARN" | "DR_INFO_TOPIC_ARN" => "arn:aws:sns:topic",
                _ => return None,
            };
            Some(value.to_owned())
        });
        Config::read(vars, &home)
    }

    #[test]
    fn what_is_not_set_is_the_safe_choice() {
        let config = read("DR_TARGET_REGIONS", "eu-west-1").unwrap();
        assert!(config.limits.dry_run && !config.limits.region_fault);
        assert_eq!(config.approval_keys, ApprovalKeys::None);
        assert!(config.limits.listed.is_empty() && config.limits.probe_hosts.is_empty());
        assert_eq!(config.limits.regions.len(), 2);
        assert_eq!(config.limits.settling_seconds, 30);
    }

    #[test]
    fn each_list_allows_its_own_kind() {
        for (name, kind) in [
            ("CHAOS_EC2_IDS", ResourceKind::Ec2Instance),
            ("CHAOS_ASG_NAMES", ResourceKind::ScalingGroup),
            ("CHAOS_TARGET_GROUP_ARNS", ResourceKind::TargetGroup),
            ("CHAOS_FUNCTION_NAMES", ResourceKind::Function),
        ] {
            let listed = read(name, "one, two").unwrap().limits.listed;
            assert_eq!(
                listed,
                BTreeSet::from([(kind, "one".to_owned()), (kind, "two".to_owned())]),
                "{name}"
            );
        }
    }

    #[test]
    fn faults_are_named() {
        for (name, value) in [
            ("CHAOS_FREEZE_WINDOWS", "sometimes"),
            ("CHAOS_APPROVALS", "0"),
            ("CHAOS_APPROVALS", "6"),
            ("CHAOS_APPROVAL_KEY", "arn:aws:kms:us-east-1:111122223333:key/1"),
            ("CHAOS_APPROVAL_KEY", "grace=alias/a,Grace=alias/b"),
            ("CHAOS_CHANNELS", "slack"),
            ("CHAOS_MAX_DURATION_MINUTES", "121"),
            ("CHAOS_SETTLING_SECONDS", "0"),
            ("CHAOS_DRY_RUN", "maybe"),
            ("DR_HOME_REGION", "us-east-1"),
        ] {
            let error = read(name, value).unwrap_err();
            assert_eq!(error.name(), ErrorName::InvalidConfiguration, "{name} = {value}");
            assert!(error.what().contains(name), "{error}");
        }
    }

    #[test]
    fn approvals_are_signed_by_a_secret_or_by_a_key_for_each_approver() {
        let secret = "arn:aws:secretsmanager:us-east-1:111122223333:secret:approvers-AbCdEf";
        let config = read("CHAOS_APPROVAL_KEY", secret).unwrap();
        assert_eq!(config.approval_keys, ApprovalKeys::Secret(secret.to_owned()));
        let config = read("CHAOS_APPROVAL_KEY", "Grace=alias/grace, edsger=alias/edsger").unwrap();
        let ApprovalKeys::Kms(keys) = config.approval_keys else { unreachable!() };
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["edsger", "grace"]);
    }
}
