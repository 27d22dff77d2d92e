//! The state machines by themselves: every road ends, every failure is dealt with, every error name is a real one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use dr_core::chaos::journal::{LEASE, Phase};
use dr_core::{ErrorClass, ErrorName};
use scenarios::machine::strings;
use scenarios::{Machine, State};
use serde_json::{Value, json};

/// What the Lambda service and Step Functions themselves raise when another attempt can help. Running any of our
/// actions twice is safe, so a function that timed out or died is called again.
const TRANSIENT: [&str; 8] = [
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "Lambda.Unknown",
    "Sandbox.Timedout",
    "Runtime.ExitError",
    "States.Timeout",
];

/// What the start of a child execution fails with when another attempt can help. `ExecutionLimitExceeded` is the name in
/// AWS's own example, the one with `Exception` what the rule for names of SDK errors makes of it. A throttled call is no
/// error of the API's model and may arrive as the SDK's base class; a refused permission does so too, and is tried in
/// vain. <https://docs.aws.amazon.com/step-functions/latest/dg/concepts-nested-workflows.html>
const NOT_STARTED: [&str; 5] = [
    "StepFunctions.SdkClientException",
    "StepFunctions.ThrottlingException",
    "StepFunctions.ExecutionLimitExceeded",
    "StepFunctions.ExecutionLimitExceededException",
    "StepFunctions.AWSStepFunctionsException",
];

/// Names of class retry that no function raises: they name what arrives as one of [`TRANSIENT`].
const ONLY_IN_RECORDS: [ErrorName; 2] = [ErrorName::FunctionTimedOut, ErrorName::FunctionKilled];

/// Names of class retry that `update_state` cannot raise: it talks to no database and not to RDS.
const NOT_OF_UPDATE_STATE: [ErrorName; 4] = [
    ErrorName::DatabaseUnavailable,
    ErrorName::InsufficientCapacity,
    ErrorName::ConnectionFailed,
    ErrorName::ConnectionLost,
];

/// Catchers that hand on no `failure`, and why.
const CATCHES_WITHOUT_RECORDING: [(&str, &str, &str); 29] = [
    ("backup_orchestration", "AlertPartialReplication", "the operation is recorded already"),
    ("backup_orchestration", "PublishSuccess", "the operation is recorded already"),
    ("backup_orchestration", "HandleValidationFailure", "what the label is goes into the alert"),
    ("backup_orchestration", "AlertValidationFailure", "the verdict is what is recorded next"),
    ("backup_orchestration", "RecordValidationFailure", "recording itself failed; the alert was sent before"),
    ("backup_orchestration", "RecordFailure", "recording itself failed; the alert says so"),
    ("backup_orchestration", "AlertFailure", "the alarm on failed executions speaks next"),
    ("backup_orchestration/ReplicateToRegions", "CopyToRegion", "a Region's failure is its answer"),
    ("backup_orchestration/ReplicateToRegions", "ReportCopyProgress", "the copy goes on without a report"),
    ("chaos_experiment", "TellObstacles", "the operation is recorded already"),
    ("chaos_experiment", "CompareData", "that the rows could not be compared is part of the report"),
    ("chaos_experiment", "Announce", "the operation is recorded already"),
    (
        "chaos_experiment",
        "AlertRollbackFailed",
        "what failed is named already, and is told again once it is recorded",
    ),
    (
        "chaos_experiment",
        "LeaveToTheWatchdog",
        "what failed is named already, and is told again once it is recorded",
    ),
    ("chaos_experiment", "RecordExperimentFailure", "recording itself failed; the alert says so"),
    ("chaos_experiment", "AlertExperimentFailure", "the alarm on failed executions speaks next"),
    ("fleet_backup", "CheckHealth", "how everything stands afterwards is no part of the run"),
    ("fleet_backup", "PublishSummary", "the operation is recorded already"),
    ("fleet_backup", "RecordFleetFailure", "recording itself failed; the alert says so"),
    ("fleet_backup", "AlertFleetFailure", "the alarm on failed executions speaks next"),
    ("fleet_backup/BackUpDatabases", "BackUpDatabase", "a database's failure is its answer"),
    ("fleet_backup/BackUpDatabases", "FindBackup", "a database's failure is its answer"),
    ("prove_backup", "LabelSnapshot", "the verdict is what is recorded next, and the alert says so"),
    ("prove_backup", "AlertUnlabelled", "the verdict is recorded already"),
    ("prove_backup", "DisposeRestore", "the orphan's alert has the error; the proof's own result stands"),
    ("prove_backup", "AlertOrphan", "the proof's own result stands"),
    ("prove_backup", "AlertUnproven", "the verdict is recorded already"),
    ("prove_backup", "AlertProofFailure", "the alarm on failed executions speaks next"),
    ("prove_backup", "RecordProofFailure", "recording itself failed; the alert says so"),
];

/// What each action of each function changes, and the state that undoes it or tells a person. Actions that change
/// nothing outside our own records, or can be repeated without anybody's notice, have none.
const UNDO_OR_PAGE: [(&str, &str, &str, &str); 20] = [
    // machine, state, undo or page, what is changed
    ("backup_orchestration", "InitializeBackup", "RecordFailure", "the database's lock"),
    ("backup_orchestration", "LockDatabase", "RecordFailure", "the database's lock"),
    (
        "backup_orchestration",
        "FrameSource",
        "AlertFailure",
        "a heartbeat row; later heartbeats remove old ones",
    ),
    ("backup_orchestration", "CreateSnapshot", "AlertFailure", "a snapshot, which the alert names"),
    ("backup_orchestration", "LabelProven", "AlertFailure", "a tag"),
    ("backup_orchestration", "HandleValidationFailure", "AlertValidationFailure", "a tag"),
    (
        "backup_orchestration/ReplicateToRegions",
        "CopyToRegion",
        "RegionFailed",
        "a copy, which the alert names",
    ),
    ("chaos_experiment", "BeginExperiment", "RecordExperimentFailure", "the experiment's lock"),
    (
        "chaos_experiment",
        "FrameData",
        "RecordExperimentFailure",
        "a heartbeat row; later heartbeats remove old ones",
    ),
    (
        "chaos_experiment",
        "ArmExperiment",
        "RecordExperimentFailure",
        "locks and journal in one transaction, which the watchdog ends",
    ),
    ("chaos_experiment", "InjectFaults", "LeaveToTheWatchdog", "what the plan names"),
    (
        "chaos_experiment",
        "ObserveExperiment",
        "LeaveToTheWatchdog",
        "what the plan names, when it ends early",
    ),
    ("chaos_experiment", "RollBackFaults", "LeaveToTheWatchdog", "what the plan names, back"),
    ("chaos_experiment", "CheckRecovery", "LeaveToTheWatchdog", "the journal"),
    ("fleet_backup", "InitializeFleet", "RecordFleetFailure", "the fleet's lock"),
    ("prove_backup", "LabelSnapshot", "RecordProof", "a tag; the alert says when it is not set"),
    ("prove_backup", "InitializeProof", "RecordProofFailure", "the operation's record"),
    ("prove_backup", "StartRestore", "DisposeRestore", "the temporary instance and its secret"),
    ("prove_backup", "CheckRestore", "DisposeRestore", "the temporary instance's password"),
    ("prove_backup", "DisposeRestore", "AlertOrphan", "the temporary instance, half deleted"),
];

fn machines() -> Vec<Machine> {
    let machines = Machine::all().unwrap();
    assert!(machines.len() >= 4, "stepfunctions/ holds {} machines", machines.len());
    machines
}

fn every_state(check: impl Fn(&Machine, &State)) {
    for machine in machines() {
        for state in machine.states.values() {
            check(&machine, state);
        }
    }
}

fn tasks(check: impl Fn(&Machine, &State)) {
    every_state(|machine, state| {
        if state.kind() == "Task" {
            check(machine, state);
        }
    });
}

#[test]
fn every_state_can_be_reached_and_can_end() {
    for machine in machines() {
        let reached = machine.reachable([machine.start.as_str()], "");
        let all: BTreeSet<&str> = machine.states.keys().map(String::as_str).collect();
        assert_eq!(
            reached, all,
            "{}: states that are named but not there, or there but never entered",
            machine.name
        );
        for state in machine.states.values() {
            let ends =
                machine.reachable([state.name.as_str()], "").into_iter().any(|s| machine.states[s].is_end());
            assert!(ends, "{}: nothing ends after {}", machine.name, state.name);
            let leads = !state.leads_to().is_empty();
            assert!(leads != state.is_end(), "{}: {} must lead on or end", machine.name, state.name);
        }
    }
}

#[test]
fn every_machine_is_jsonata_with_a_comment_and_a_timeout() {
    for machine in machines().iter().filter(|machine| !machine.name.contains('/')) {
        assert_eq!(machine.definition["QueryLanguage"], "JSONata", "{}", machine.name);
        assert!(machine.definition["Comment"].is_string(), "{}", machine.name);
        assert!(machine.definition["TimeoutSeconds"].is_u64(), "{}", machine.name);
    }
}

#[test]
fn states_are_named_by_what_they_do() {
    every_state(|machine, state| {
        let name = &state.name;
        let valid = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric());
        assert!(valid, "{}: {name}", machine.name);
        assert!(state.kind() != "Choice" || name.starts_with("Is"), "{}: the choice {name}", machine.name);
        assert!(state.kind() != "Wait" || name.starts_with("Wait"), "{}: the wait {name}", machine.name);
    });
}

#[test]
fn every_task_has_a_timeout_and_catches_everything_last() {
    every_state(|machine, state| {
        let name = format!("{}: {}", machine.name, state.name);
        let catchers = state.definition["Catch"].as_array();
        match state.kind() {
            // How long is waited for people is what the installation says, and is in the plan.
            "Task" if state.waits_for_a_token() => {
                assert_eq!(state.definition["TimeoutSeconds"], "{% $plan.approvalSeconds %}", "{name}");
            }
            "Task" => assert!(state.definition["TimeoutSeconds"].is_u64(), "{name} has no literal timeout"),
            "Map" => {}
            _ => return assert!(catchers.is_none(), "{name} cannot catch"),
        }
        let last =
            catchers.and_then(|catchers| catchers.last()).unwrap_or_else(|| panic!("{name} catches nothing"));
        assert_eq!(last["ErrorEquals"], json!(["States.ALL"]), "{name}");
    });
}

#[test]
fn what_is_caught_is_handed_on_with_its_error_cause_and_state() {
    let expected = json!({
        "error": "{% $states.errorOutput.Error %}",
        "cause": "{% $states.errorOutput.Cause & '' %}",
        "state": "{% $states.context.State.Name %}",
    });
    every_state(|machine, state| {
        for catcher in state.definition["Catch"].as_array().into_iter().flatten() {
            let here = (machine.name.as_str(), state.name.as_str());
            let explained = CATCHES_WITHOUT_RECORDING.iter().any(|(m, s, _)| (*m, *s) == here);
            assert_eq!(catcher["Assign"]["failure"] == expected, !explained, "{here:?}");
        }
    });
    let machines = machines();
    for (machine, state, _) in CATCHES_WITHOUT_RECORDING {
        let there = machines.iter().any(|m| m.name == machine && m.states.contains_key(state));
        assert!(there, "{machine} has no {state}");
    }
}

#[test]
fn every_error_name_in_the_machines_is_one_of_ours() {
    for machine in machines() {
        for text in strings(&machine.definition) {
            for (at, _) in text.match_indices("Dr.") {
                let name: String = text[at..]
                    .chars()
                    .enumerate()
                    .take_while(|(i, c)| *i == 2 || c.is_ascii_alphanumeric())
                    .map(|(_, c)| c)
                    .collect();
                assert!(ErrorName::parse(&name).is_some(), "{}: {name} in {text}", machine.name);
            }
        }
    }
}

#[test]
fn a_function_is_called_again_for_everything_that_can_pass_and_for_nothing_else() {
    tasks(|machine, state| {
        let Some((function, ..)) = state.call() else { return };
        let expected: BTreeSet<&str> = ErrorName::ALL
            .iter()
            .filter(|name| name.class() == ErrorClass::Retry && !ONLY_IN_RECORDS.contains(name))
            .filter(|name| function != "update_state" || !NOT_OF_UPDATE_STATE.contains(name))
            .map(|name| name.as_str())
            .chain(TRANSIENT)
            // The end of a wait for people is no trouble that passes.
            .filter(|name| *name != "States.Timeout" || !state.waits_for_a_token())
            .collect();
        assert_eq!(state.retries(), expected, "{}: {}", machine.name, state.name);
    });
}

#[test]
fn every_retrier_backs_off_with_jitter_and_gives_up() {
    tasks(|machine, state| {
        let name = format!("{}: {}", machine.name, state.name);
        let retriers = state.definition["Retry"].as_array();
        for retrier in retriers.unwrap_or_else(|| panic!("{name} never retries")) {
            assert_eq!(retrier["BackoffRate"], json!(2.0), "{name}");
            assert_eq!(retrier["JitterStrategy"], "FULL", "{name}");
            assert!((1..=10).contains(&retrier["MaxAttempts"].as_u64().unwrap()), "{name}");
            let (first, most) = (retrier["IntervalSeconds"].as_u64(), retrier["MaxDelaySeconds"].as_u64());
            assert!(first >= Some(1) && most > first && most <= Some(600), "{name}");
        }
        if state.resource() == "sns:publish" {
            // A person must hear of it: whatever went wrong, it is tried again, and a message sent twice does no harm.
            assert_eq!(state.retries(), BTreeSet::from(["States.TaskFailed", "States.Timeout"]), "{name}");
        }
    });
}

/// A child retries its own steps, so its failure is final; a second one beside a first one would restore twice.
#[test]
fn a_child_is_started_again_only_if_it_was_not_started_and_under_the_same_name() {
    tasks(|machine, state| {
        if state.resource() != "states:startExecution.sync:2" {
            return;
        }
        let name = format!("{}: {}", machine.name, state.name);
        assert_eq!(state.retries(), BTreeSet::from(NOT_STARTED), "{name}");
        let arguments = &state.definition["Arguments"];
        let child = arguments["Name"].as_str().unwrap_or_else(|| panic!("{name} starts under any name"));
        let taken = &state.definition["Catch"][0];
        assert_eq!(taken["ErrorEquals"], json!(["StepFunctions.ExecutionAlreadyExistsException"]), "{name}");
        let finder = &machine.states[taken["Next"].as_str().unwrap()].definition;
        let arn = finder["Arguments"]["ExecutionArn"].as_str().unwrap();
        let named = child.trim_start_matches("{% ").trim_end_matches(" %}");
        assert!(arn.contains(named), "{name} starts {named}, and what looks for it looks for {arn}");
        assert!(arn.contains(arguments["StateMachineArn"].as_str().unwrap()), "{name}");
    });
}

#[test]
fn whatever_a_step_changed_is_undone_or_told_when_it_fails() {
    let changes = |function: &str, action: &str| match (function, action) {
        ("update_state", "begin" | "lock")
        | ("create_snapshot", "create" | "label")
        | ("validate_backup", "frame")
        | ("replicate_to_region", "copy")
        | ("restore_database", "start" | "check" | "dispose")
        | ("chaos_runner", "arm" | "advance") => true,
        ("update_state", "choose" | "progress" | "checkpoint" | "succeed" | "fail")
        | ("create_snapshot", "describe" | "check")
        | ("plan_fleet", "databases" | "summarise" | "recoveryPoint")
        | ("health_check", "check")
        | ("validate_backup", "observe" | "examine" | "judge" | "quick" | "compare")
        | ("chaos_runner", "plan" | "awaitApproval" | "report") => false,
        (function, action) => panic!("say whether {action} of {function} changes anything"),
    };
    let mut seen = BTreeSet::new();
    for machine in machines() {
        for state in machine.states.values() {
            let Some((function, action, _)) = state.call() else { continue };
            let listed = UNDO_OR_PAGE.iter().find(|(m, s, ..)| *m == machine.name && *s == state.name);
            assert_eq!(listed.is_some(), changes(&function, &action), "{}: {}", machine.name, state.name);
            let Some((_, _, remedy, _)) = listed else { continue };
            seen.insert(state.name.clone());
            let past_it = machine.reachable(state.catches_to(), remedy);
            let ends: Vec<_> = past_it.into_iter().filter(|name| machine.states[*name].is_end()).collect();
            assert!(
                ends.is_empty(),
                "{}: {} can fail and end in {ends:?} without {remedy}",
                machine.name,
                state.name
            );
        }
    }
    assert_eq!(seen.len(), UNDO_OR_PAGE.len(), "a step of the table is not there");
}

#[test]
fn every_end_but_success_was_told_to_a_person() {
    // A proof that is part of a backup leaves the telling to it: IsFailureAlertNeeded and IsAlertNeeded decide that. An
    // experiment tells of what a person must put back before it is recorded, and then does not tell it again.
    for (machine, silent_end, page) in [
        ("backup_orchestration", "BackupFailed", "AlertFailure"),
        ("backup_orchestration", "BackupUnproven", "AlertValidationFailure"),
        ("backup_orchestration", "ReplicationIncomplete", "AlertPartialReplication"),
        ("chaos_experiment", "ExperimentFailed", "IsFailureAlertNeeded"),
        ("chaos_experiment", "ExperimentEnded", "Announce"),
        ("chaos_experiment", "Planned", "IsPlanReady"),
        ("fleet_backup", "FleetFailed", "AlertFleetFailure"),
        ("fleet_backup", "FleetDone", "PublishSummary"),
        ("prove_backup", "ProofFailed", "IsFailureAlertNeeded"),
        ("prove_backup", "ProofDone", "IsAlertNeeded"),
    ] {
        let machine = machines().into_iter().find(|m| m.name == machine).unwrap();
        assert!(machine.states.contains_key(page));
        assert!(
            !machine.reachable([machine.start.as_str()], page).contains(silent_end),
            "{silent_end} without {page}"
        );
    }
}

#[test]
fn nothing_is_copied_before_it_is_proven() {
    let machines = machines();
    let backup = machines.iter().find(|m| m.name == "backup_orchestration").unwrap();
    for gate in ["ValidateBackup", "IsBackupProven", "LabelProven"] {
        assert!(!backup.reachable(["InitializeBackup"], gate).contains("ReplicateToRegions"), "past {gate}");
    }
    let gate = &backup.states["IsBackupProven"].definition;
    assert_eq!(
        gate["Choices"],
        json!([{"Condition": "{% $proof.verdict = 'proven' %}", "Next": "LabelProven"}])
    );
    assert_eq!(gate["Default"], "HandleValidationFailure");
}

#[test]
fn a_wait_is_at_least_what_was_asked_for_and_grows_with_the_age_of_the_execution() {
    let mut waits = 0;
    for machine in machines() {
        // An experiment's looks follow the seconds in which a stop must be heard: see below.
        // An experiment has a lease: see below.
        let waits_of = |state: &&State| state.kind() == "Wait" && state.name != "WaitForNextLook";
        for state in machine.states.values().filter(waits_of) {
            waits += 1;
            let seconds = state.definition["Seconds"].as_str().unwrap();
            assert!(
                seconds.starts_with("{% $max([1, $") && seconds.contains(".checkAgainInSeconds"),
                "{}",
                state.name
            );
            assert!(seconds.contains("$min([900, $floor(") && seconds.contains("/ 50000)"), "{}", state.name);
        }
    }
    assert_eq!(waits, 11);
}

/// With waits of at least 2 % of the execution's age, but at most 15 minutes, polling from the first second on for
/// four days makes fewer events than one execution may have, also for ten Regions and the loops before them.
#[test]
fn polling_for_as_long_as_an_execution_lasts_stays_below_the_limit_of_its_history() {
    let shortest = 10.0_f64;
    let (mut age, mut polls) = (0.0_f64, 0);
    while age < 345_600.0 {
        age += shortest.max((age * 0.02).min(900.0));
        polls += 1;
    }
    // A loop enters four states: Wait (2 events), two invocations (5 each), Choice (2).
    let events_of_one_loop = polls * 14;
    assert!(events_of_one_loop < 25_000 / 2, "{events_of_one_loop} events");
}

/// A look hears of a stop, and a runner that waits for longer than half of its lease loses the experiment to the
/// watchdog; so an experiment waits for at most 30 seconds, and from 0.25 % of its age on.
#[test]
fn an_experiment_is_looked_at_often_enough_for_its_lease_and_seldom_enough_for_its_history() {
    let machines = machines();
    let machine = machines.iter().find(|machine| machine.name == "chaos_experiment").unwrap();
    assert_eq!(
        machine.states["WaitForNextLook"].definition["Seconds"],
        "{% $max([1, $look.checkAgainInSeconds, $min([30, $floor(($toMillis($states.context.State.EnteredTime) - \
         $toMillis($armedAt)) / 400000)])]) %}"
    );
    assert!(30.0 * 2.0 <= LEASE.as_secs_f64());
    // Two hours of faults, an hour for the steady state, an hour for undoing what takes longest, and that once more.
    let (mut age, mut looks) = (0.0_f64, 0);
    while age < 5.0 * 3_600.0 {
        age += 1.0_f64.max((age / 400.0).min(30.0));
        looks += 1;
    }
    // A loop enters four states: Wait (2 events), one invocation (5), two choices (2 each).
    let events = looks * 11;
    assert!(events < 25_000 - 1_000, "{events} events");
}

/// Tries in a row may not take so long that the lease runs out: 44 seconds between the seven of them at most.
#[test]
fn a_step_of_an_experiment_is_tried_again_before_its_lease_is_over() {
    let machines = machines();
    let machine = machines.iter().find(|machine| machine.name == "chaos_experiment").unwrap();
    let mut steps = 0;
    for state in machine.states.values() {
        let Some((_, action, _)) = state.call() else { continue };
        if action != "advance" {
            continue;
        }
        steps += 1;
        let retriers = state.definition["Retry"].as_array().unwrap();
        let between: u64 = retriers.iter().map(between_tries).sum();
        assert!(between < LEASE.as_secs().unsigned_abs(), "{}: {between} s", state.name);
        assert_eq!(state.catches_to(), ["LeaveToTheWatchdog"], "{}", state.name);
    }
    assert_eq!(steps, 4);
}

/// What a retrier waits in all, seconds.
fn between_tries(retrier: &Value) -> u64 {
    let number = |field: &str| retrier[field].as_u64().unwrap();
    let tries = u32::try_from(number("MaxAttempts")).unwrap();
    (0..tries).map(|at| (number("IntervalSeconds") * 2_u64.pow(at)).min(number("MaxDelaySeconds"))).sum()
}

#[test]
fn nothing_is_touched_before_the_experiment_is_armed() {
    let machines = machines();
    let machine = machines.iter().find(|machine| machine.name == "chaos_experiment").unwrap();
    let before = machine.reachable(["BeginExperiment"], "ArmExperiment");
    for state in before {
        let call = machine.states[state].call();
        assert!(call.is_none_or(|(_, action, _)| action != "advance"), "{state} without ArmExperiment");
    }
    let dry = machine.reachable(["RecordPlan"], "");
    assert!(!dry.contains("ArmExperiment") && !dry.contains("AwaitApproval"), "{dry:?}");
    let gate = &machine.states["IsDryRun"].definition;
    assert_eq!(gate["Choices"], json!([{"Condition": "{% $plan.dryRun %}", "Next": "RecordPlan"}]));
    let gate = &machine.states["IsApprovalNeeded"].definition;
    assert_eq!(gate["Choices"], json!([{"Condition": "{% $plan.approvals > 0 %}", "Next": "AwaitApproval"}]));
}

#[test]
fn every_phase_of_a_journal_has_its_state() {
    let machines = machines();
    let machine = machines.iter().find(|machine| machine.name == "chaos_experiment").unwrap();
    let choice = &machine.states["IsStillRunning"].definition;
    let choices = choice["Choices"].as_array().unwrap();
    for phase in Phase::ALL {
        let condition = format!("{{% $look.phase = '{}' %}}", phase.as_str());
        let listed = choices.iter().any(|choice| choice["Condition"] == condition.as_str());
        assert_eq!(listed, !matches!(phase, Phase::Stuck | Phase::Ended), "{phase:?}");
    }
    assert_eq!(choices.len(), 4);
    assert_eq!(choice["Default"], "IsComparisonNeeded");
    // What is stuck is told at once, and without a data check there is nothing to compare; who stopped it is not kept waiting.
    let comparison = &machine.states["IsComparisonNeeded"].definition;
    let only = "{% $plan.dataCheck != null and $look.phase = 'ended' and \
                $not($look.reason.kind in ['emergency-stop', 'cancelled']) %}";
    assert_eq!(comparison["Choices"], json!([{"Condition": only, "Next": "CompareData"}]));
    assert_eq!(comparison["Default"], "WriteReport");
}

#[test]
fn variables_are_assigned_somewhere_and_never_shadowed() {
    for machine in machines().iter().filter(|machine| !machine.name.contains('/')) {
        let inside: Vec<_> =
            machines().into_iter().filter(|m| m.name != machine.name && m.file() == machine.name).collect();
        let outer = assigned(machine);
        let inner: BTreeSet<String> = inside.iter().flat_map(assigned).collect();
        assert!(outer.is_disjoint(&inner), "{}: {:?}", machine.name, outer.intersection(&inner));
        for text in strings(&machine.definition).into_iter().filter(|text| text.starts_with("{%")) {
            for name in variables(text) {
                assert!(
                    outer.contains(&name) || inner.contains(&name),
                    "{}: ${name} in {text}",
                    machine.name
                );
            }
        }
    }
}

fn assigned(machine: &Machine) -> BTreeSet<String> {
    let names = |assign: &Value| -> Vec<String> {
        assign.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    machine
        .states
        .values()
        .flat_map(|state| {
            let catchers = state.definition["Catch"].as_array().into_iter().flatten();
            catchers
                .map(|c| names(&c["Assign"]))
                .chain([names(&state.definition["Assign"])])
                .flatten()
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Names behind a `$` that are neither functions nor `$states`, outside of quoted text.
fn variables(expression: &str) -> Vec<String> {
    let unquoted: String = expression.split('\'').step_by(2).collect();
    unquoted
        .split('$')
        .skip(1)
        .filter_map(|rest| {
            let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            let function = rest[name.len()..].starts_with('(');
            (!name.is_empty() && !function && name != "states").then_some(name)
        })
        .collect()
}
