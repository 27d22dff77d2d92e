//! Samples under `events/` ↔ the functions' request types ↔ the payloads that the state machines send.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod fuzz;

use std::collections::{BTreeMap, BTreeSet};

use dr_core::chaos::experiment::{ExperimentRequest, Limits};
use dr_core::fleet::plan_run;
use dr_core::ids::{ExecutionArn, KmsKeyId, OperationId, Region};
use dr_core::input::parse;
use dr_core::plan::{Installation, plan_backup, plan_proof};
use dr_core::{ErrorName, Result};
use jiff::SignedDuration;
use scenarios::{Machine, files};
use serde_json::{Map, Value, json};

const FUNCTIONS: [&str; 8] = [
    "chaos_runner",
    "create_snapshot",
    "health_check",
    "plan_fleet",
    "replicate_to_region",
    "restore_database",
    "update_state",
    "validate_backup",
];
const MACHINES: [&str; 4] = ["backup_orchestration", "chaos_experiment", "fleet_backup", "prove_backup"];

/// What the function or the machine makes of its input, as far as it needs no AWS.
fn read(receiver: &str, input: Value) -> Result<()> {
    let started_at: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let execution = ExecutionArn::parse("arn:aws:states:us-east-1:123456789012:execution:m:e").unwrap();
    match receiver {
        "chaos_runner" => {
            // As the function does before it looks at anything.
            let given =
                ["plan", "arm"].iter().find_map(|action| input.pointer(&format!("/{action}/request")));
            let given = given.cloned();
            parse::<chaos_runner::Request>("the request", input)?;
            let Some(given) = given else { return Ok(()) };
            parse::<ExperimentRequest>("the experiment", given)?.check(&limits())
        }
        "create_snapshot" => parse::<create_snapshot::Request>("the request", input).map(drop),
        "plan_fleet" => parse::<plan_fleet::Request>("the request", input).map(drop),
        "health_check" => health_check::Check::read(input).map(drop),
        "replicate_to_region" => parse::<replicate_to_region::Request>("the request", input).map(drop),
        "restore_database" => parse::<restore_database::Request>("the request", input).map(drop),
        "update_state" => parse::<update_state::Request>("the request", input).map(drop),
        "validate_backup" => parse::<validate_backup::Request>("the request", input).map(drop),
        "backup_orchestration" => {
            let request = parse("the backup request", input)?;
            let operation = OperationId::of_execution("backup", &execution);
            plan_backup(&operation, &request, &installation(), started_at).map(drop)
        }
        "fleet_backup" => {
            let request = parse("the fleet request", input)?;
            let operation = OperationId::of_execution("fleet", &execution);
            plan_run(&operation, &request, &installation(), started_at).map(drop)
        }
        "prove_backup" => {
            let request = parse("the proof request", input)?;
            let operation = OperationId::of_execution("proof", &execution);
            plan_proof(&operation, &request, &installation(), started_at).map(drop)
        }
        // What `update_state` refuses. What only the installation can tell is refused by `chaos_runner`.
        "chaos_experiment" => parse::<ExperimentRequest>("the experiment", input).map(drop),
        other => panic!("nothing is called {other}"),
    }
}

/// An installation for which the samples' experiments are meant.
fn limits() -> Limits {
    let region = |name| Region::parse(name).unwrap();
    Limits {
        home: region("us-east-1"),
        regions: ["us-east-1", "us-west-2", "eu-west-1"].map(region).into(),
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

/// What the local cloud, and the guide's example, are configured for.
fn installation() -> Installation {
    let region = |name| Region::parse(name).unwrap();
    let key = |region: &str| KmsKeyId::parse(format!("arn:aws:kms:{region}:123456789012:key/1")).unwrap();
    Installation {
        region: region("us-east-1"),
        account: "123456789012".into(),
        target_regions: vec![region("us-west-2"), region("eu-west-1")],
        target_keys: ["us-west-2", "eu-west-1"].map(|name| (region(name), key(name))).into(),
    }
}

fn samples(directory: &str) -> BTreeMap<String, Value> {
    files::list(format!("events/{directory}"), ".json")
        .unwrap()
        .into_iter()
        .map(|path| (path.strip_prefix("events").unwrap().display().to_string(), files::json(&path).unwrap()))
        .collect()
}

#[test]
fn every_function_and_every_machine_has_samples_and_nothing_else_has() {
    let mut found: Vec<String> = std::fs::read_dir(files::root().join("events"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    found.sort();
    let mut expected: Vec<&str> =
        FUNCTIONS.into_iter().chain(MACHINES).chain(["expected-errors.json"]).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn every_sample_is_accepted() {
    for receiver in FUNCTIONS.into_iter().chain(MACHINES) {
        let samples = samples(receiver);
        assert!(!samples.is_empty(), "{receiver} has no samples");
        for (path, sample) in samples {
            read(receiver, sample).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}

#[test]
fn every_bad_sample_is_refused_by_the_name_and_the_place_that_are_expected() {
    let mut expected: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_value(files::json("events/expected-errors.json").unwrap()).unwrap();
    for receiver in FUNCTIONS.into_iter().chain(MACHINES) {
        for (path, sample) in samples(&format!("{receiver}/bad")) {
            let expected =
                expected.remove(&path).unwrap_or_else(|| panic!("{path} is not in expected-errors.json"));
            let error = read(receiver, sample).err().unwrap_or_else(|| panic!("{path} is accepted"));
            assert_eq!(Some(error.name()), ErrorName::parse(&expected["error"]), "{path}: {error}");
            assert!(error.to_string().contains(&expected["says"]), "{path}: {error}");
        }
    }
    assert!(expected.is_empty(), "expected, but not there: {:?}", expected.keys());
}

#[test]
fn every_sample_of_an_experiment_says_whether_it_only_plans_and_can_be_planned() {
    for (path, sample) in samples("chaos_experiment") {
        assert!(sample["dryRun"].is_boolean(), "{path}");
        let request: ExperimentRequest = parse("the experiment", sample).unwrap();
        request.check(&limits()).unwrap_or_else(|error| panic!("{path}: {error}"));
        let asks = request.approvals_needed(&limits()) > 0;
        assert!(!asks || request.requested_by.is_some(), "{path} needs an approval, and nobody asks for it");
    }
}

#[test]
fn every_action_that_a_machine_uses_has_a_sample_and_the_other_way_round() {
    let used: BTreeSet<(String, String)> = Machine::all()
        .unwrap()
        .iter()
        .flat_map(|machine| machine.states.values())
        .filter_map(|state| state.call().map(|(function, action, _)| (function, action)))
        .collect();
    let sampled: BTreeSet<(String, String)> = FUNCTIONS
        .iter()
        .flat_map(|function| {
            let samples = samples(function);
            samples
                .into_values()
                // An event of EventBridge names no action.
                .filter(|sample| sample.get("detail-type").is_none())
                .map(|sample| ((*function).to_owned(), action_of(&sample)))
                .collect::<Vec<_>>()
        })
        .collect();
    // For people, not for machines.
    let by_hand = [
        ("update_state", "emergencyStop"),
        ("update_state", "liftEmergencyStop"),
        ("update_state", "status"),
        ("chaos_runner", "approve"),
        ("chaos_runner", "cancel"),
        ("chaos_runner", "emergencyStop"),
        ("chaos_runner", "liftEmergencyStop"),
        ("chaos_runner", "unblock"),
        ("chaos_runner", "status"),
        // For probes of experiments.
        ("validate_backup", "compare"),
        ("validate_backup", "ledger"),
    ];
    let by_hand = by_hand.map(|(function, action)| (function.to_owned(), action.to_owned()));
    // For schedules, events and people; machines may use it as a step.
    let by_schedule = [("health_check", "check"), ("chaos_runner", "watch")]
        .map(|(function, action)| (function.to_owned(), action.to_owned()));
    let used: BTreeSet<_> = used.into_iter().chain(by_hand).chain(by_schedule).collect();
    assert_eq!(used, sampled);
}

#[test]
fn every_payload_that_a_machine_sends_is_a_request_of_its_function() {
    let mut sent = 0;
    for machine in Machine::all().unwrap() {
        for state in machine.states.values() {
            let Some((function, action, body)) = state.call() else { continue };
            let name = format!("{}: {}", machine.name, state.name);
            let payload = &state.definition["Arguments"]["Payload"];
            assert_eq!(payload.as_object().unwrap().len(), 1, "{name}: a payload has one key, its action");
            // What the expressions will give is taken from a sample of this action that has all members.
            let samples: Vec<Value> =
                samples(&function).into_values().filter_map(|sample| sample.get(&action).cloned()).collect();
            let (filled, faults): (Vec<_>, Vec<_>) = samples
                .iter()
                .map(|sample| fill(body, sample, &action))
                .partition(std::result::Result::is_ok);
            let accepted =
                filled.into_iter().flatten().any(|filled| match read(&function, json!({&action: filled})) {
                    Ok(()) => true,
                    Err(error) => panic!("{name}: {error}"),
                });
            assert!(accepted, "{name}: {faults:?}");
            sent += 1;
        }
    }
    assert!(sent > 20, "only {sent} payloads");
}

#[test]
fn the_backup_that_a_fleet_starts_is_a_backup_request_of_its_own_database() {
    let machines = Machine::all().unwrap();
    let children = machines.iter().find(|machine| machine.name == "fleet_backup/BackUpDatabases").unwrap();
    let request = children.states["BeginDatabase"].definition["Assign"]["request"].as_str().unwrap();
    let merged = "$merge([$states.input.backup, {'database': $states.input.member.database, \
                  'databaseKind': $states.input.member.databaseKind}])";
    assert!(request.contains(merged), "{request}");
    let input = &children.states["BackUpDatabase"].definition["Arguments"]["Input"];
    assert_eq!(input, "{% $request %}");
    // The plan's `backup` with a database in it is what backup_orchestration is started with.
    let fleet = parse("the fleet request", files::json("events/fleet_backup/by-tag.json").unwrap()).unwrap();
    let execution = ExecutionArn::parse("arn:aws:states:us-east-1:123456789012:execution:m:e").unwrap();
    let operation = OperationId::of_execution("fleet", &execution);
    let started_at = "2026-01-02T03:04:05Z".parse().unwrap();
    let plan = plan_run(&operation, &fleet, &installation(), started_at).unwrap();
    let mut backup = serde_json::to_value(plan.backup).unwrap();
    backup["database"] = json!("prod-manufacturing-db");
    backup["databaseKind"] = json!("cluster");
    read("backup_orchestration", backup).unwrap();
}

#[test]
fn the_proof_that_a_backup_starts_is_a_proof_request() {
    let machines = Machine::all().unwrap();
    let backup = machines.iter().find(|machine| machine.name == "backup_orchestration").unwrap();
    let input = &backup.states["ValidateBackup"].definition["Arguments"]["Input"];
    let mut sample = files::json("events/prove_backup/full.json").unwrap();
    sample["parentOperationId"] = sample["frameOperationId"].clone();
    let filled = fill(input, &sample, "Input").unwrap();
    assert_eq!(filled.as_object().unwrap().len(), sample.as_object().unwrap().len());
    read("prove_backup", filled).unwrap();
}

fn action_of(sample: &Value) -> String {
    sample.as_object().unwrap().keys().next().unwrap().clone()
}

/// The machine's template with each expression replaced by what the sample has in its place; an error names the
/// member that the sample does not have.
fn fill(template: &Value, sample: &Value, at: &str) -> std::result::Result<Value, String> {
    match template {
        Value::String(text) if text.starts_with("{%") => Ok(sample.clone()),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let inside = sample.get(name).ok_or(format!("the sample has no `{at}.{name}`"))?;
                Ok((name.clone(), fill(value, inside, &format!("{at}.{name}"))?))
            })
            .collect::<std::result::Result<Map<_, _>, _>>()
            .map(Value::Object),
        literal => Ok(literal.clone()),
    }
}
