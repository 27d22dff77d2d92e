//! Experiments against a world in memory: runners die at every point, answers are lost, people stop things, and the world
//! must return to what was recorded.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::data::{self, Known};
use super::experiment::{ExperimentRequest, Limits};
use super::journal::{Decision, Entry, Journal, Phase, Reason, Sight, StepStatus};
use super::plan::{self, Seen};
use super::probe::{Finding, Probe, Verdict};
use super::report::{Outcome, report};
use super::selection::choose;
use super::world::{
    ALLOWED, Change, Database, Facts, Function, Machine, RegionState, Resource, ResourceKind, ScalingGroup,
    State, TAG, Target, TargetGroup,
};
use crate::control::EmergencyStop;
use crate::error::{DrError, ErrorName};
use crate::ids::{ExecutionArn, OperationId, Region};
use crate::observed::{Observed, Tags};

fn region() -> Region {
    Region::parse("us-east-1").unwrap()
}

fn operation() -> OperationId {
    OperationId::parse("chaos-0123456789abcdef").unwrap()
}

fn execution() -> ExecutionArn {
    ExecutionArn::parse("arn:aws:states:us-east-1:111122223333:execution:ChaosExperiment:one").unwrap()
}

fn start() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

fn set<const N: usize>(words: [&str; N]) -> BTreeSet<String> {
    words.map(ToOwned::to_owned).into()
}

fn resource(kind: ResourceKind, id: &str) -> Resource {
    Resource { kind, region: region(), id: id.to_owned() }
}

fn limits() -> Limits {
    Limits {
        home: region(),
        regions: [region(), Region::parse("eu-west-1").unwrap()].into(),
        longest: SignedDuration::from_hours(1),
        listed: BTreeSet::new(),
        channels: set(["on-call"]),
        probe_hosts: vec!["orders.example.com".to_owned()],
        freeze: Vec::new(),
        approvals: 1,
        dry_run: true,
        settling_seconds: 30,
        region_fault: true,
        own_functions: None,
    }
}

/// What there is before every experiment.
#[derive(Debug, Clone, PartialEq)]
struct World(BTreeMap<Resource, State>);

fn target(id: &str, zone: &str) -> Target {
    Target { id: id.to_owned(), port: Some(80), zone: Some(zone.to_owned()) }
}

impl World {
    fn new() -> Self {
        use ResourceKind as K;
        let database = |serves_from: &str| Database {
            status: "available".to_owned(),
            standby: true,
            serves_from: Some(serves_from.to_owned()),
            ..Database::default()
        };
        let machine = |group: Option<&str>| {
            State::Machine(Machine {
                state: "running".to_owned(),
                group: group.map(ToOwned::to_owned),
                security_groups: set(["sg-1", "sg-2"]),
                interfaces: 1,
            })
        };
        let targets: BTreeSet<Target> =
            [target("i-1", "a"), target("i-2", "a"), target("i-3", "b"), target("i-4", "b")].into();
        Self(BTreeMap::from([
            (resource(K::DbInstance, "orders"), State::Database(database("a"))),
            (resource(K::DbCluster, "till"), State::Database(database("till-1"))),
            (resource(K::Ec2Instance, "i-1"), machine(None)),
            (resource(K::Ec2Instance, "i-2"), machine(None)),
            (resource(K::Ec2Instance, "i-8"), machine(Some("web"))),
            (resource(K::Ec2Instance, "i-9"), machine(Some("web"))),
            (
                resource(K::ScalingGroup, "web"),
                State::ScalingGroup(ScalingGroup {
                    min: 1,
                    desired: 2,
                    max: 4,
                    suspended: set(["AZRebalance"]),
                    in_service: set(["i-8", "i-9"]),
                }),
            ),
            (
                resource(K::TargetGroup, "arn:tg"),
                State::TargetGroup(TargetGroup { registered: targets.clone(), healthy: targets }),
            ),
            (resource(K::Function, "checkout"), State::Function(Function { reserved_concurrency: Some(7) })),
            (resource(K::Function, "mail"), State::Function(Function::default())),
            (resource(K::Region, "us-east-1"), State::Region(RegionState::default())),
        ]))
    }

    fn seen(&self) -> Seen {
        let facts = |state: &State| Facts {
            arn: "arn:x".to_owned(),
            tags: Tags::from([(TAG.to_owned(), ALLOWED.to_owned())]),
            state: state.clone(),
        };
        self.0.iter().map(|(resource, state)| (resource.clone(), Observed::Found(facts(state)))).collect()
    }

    /// Time passes: what is under way arrives.
    fn tick(&mut self) {
        let mut next = 100;
        for state in self.0.values_mut() {
            match state {
                State::Database(database) => {
                    let arrives = match database.status.as_str() {
                        "stopping" => "stopped",
                        "rebooting" | "starting" | "failing-over" => "available",
                        other => other,
                    };
                    database.status = arrives.to_owned();
                }
                State::Machine(machine) => {
                    let arrives = match machine.state.as_str() {
                        "stopping" => "stopped",
                        "pending" => "running",
                        "shutting-down" => "terminated",
                        other => other,
                    };
                    machine.state = arrives.to_owned();
                }
                State::ScalingGroup(group) => {
                    let desired = usize::try_from(group.desired).unwrap();
                    while group.in_service.len() > desired {
                        group.in_service.pop_first();
                    }
                    if group.in_service.len() < desired && !group.suspended.contains("Launch") {
                        next += 1;
                        while !group.in_service.insert(format!("i-new-{next}")) {
                            next += 1;
                        }
                    }
                }
                State::TargetGroup(group) => group.healthy = group.registered.clone(),
                State::Function(_) | State::Region(_) => {}
            }
        }
    }

    /// Makes a change, as AWS would: in the wrong state it is refused.
    fn change(&mut self, resource: &Resource, change: &Change) -> Result<(), String> {
        if let Change::TerminateEc2Instance { instance } = change {
            for state in self.0.values_mut() {
                if let State::ScalingGroup(group) = state {
                    group.in_service.remove(instance);
                }
            }
        }
        let state = self.0.get_mut(resource).ok_or("missing")?;
        let moved = |status: &mut String, from: &str, to: &str| {
            if status == from {
                to.clone_into(status);
                Ok(())
            } else {
                Err(format!("InvalidState: {status}"))
            }
        };
        match (state, change) {
            (State::Database(database), Change::RebootDbInstance { force_failover }) => {
                moved(&mut database.status, "available", "rebooting")?;
                if *force_failover {
                    let other = if database.serves_from.as_deref() == Some("a") { "b" } else { "a" };
                    database.serves_from = Some(other.to_owned());
                }
                Ok(())
            }
            (State::Database(database), Change::FailoverDbCluster { to }) => {
                moved(&mut database.status, "available", "failing-over")?;
                database.serves_from = Some(to.clone().unwrap_or_else(|| "till-2".to_owned()));
                Ok(())
            }
            (State::Database(database), Change::StopDbInstance | Change::StopDbCluster) => {
                moved(&mut database.status, "available", "stopping")
            }
            (State::Database(database), Change::StartDbInstance | Change::StartDbCluster) => {
                moved(&mut database.status, "stopped", "starting")
            }
            (State::Machine(machine), Change::StopEc2Instance) => {
                moved(&mut machine.state, "running", "stopping")
            }
            (State::Machine(machine), Change::StartEc2Instance) => {
                moved(&mut machine.state, "stopped", "pending")
            }
            (State::Machine(machine), Change::RebootEc2Instance) => {
                moved(&mut machine.state, "running", "running")
            }
            (State::Machine(machine), Change::TerminateEc2Instance { .. }) => {
                moved(&mut machine.state, "running", "shutting-down")
            }
            (State::Machine(machine), Change::SetSecurityGroups { groups }) => {
                machine.security_groups.clone_from(groups);
                Ok(())
            }
            (State::ScalingGroup(group), Change::SuspendProcesses { processes }) => {
                group.suspended.extend(processes.iter().cloned());
                Ok(())
            }
            (State::ScalingGroup(group), Change::ResumeProcesses { processes }) => {
                group.suspended.retain(|process| !processes.contains(process));
                Ok(())
            }
            (State::ScalingGroup(group), Change::SetCapacity { min, desired, max }) => {
                (group.min, group.desired, group.max) = (*min, *desired, *max);
                Ok(())
            }
            (State::TargetGroup(group), Change::DeregisterTargets { targets }) => {
                group.registered.retain(|target| !targets.contains(target));
                Ok(())
            }
            (State::TargetGroup(group), Change::RegisterTargets { targets }) => {
                group.registered.extend(targets.iter().cloned());
                Ok(())
            }
            (State::Function(function), Change::ReserveConcurrency { executions }) => {
                function.reserved_concurrency = Some(*executions);
                Ok(())
            }
            (State::Function(function), Change::ReleaseConcurrency) => {
                function.reserved_concurrency = None;
                Ok(())
            }
            (State::Region(region), change) => {
                region.blocked = *change == Change::BlockRegion;
                Ok(())
            }
            (state, change) => Err(format!("{change:?} of {state:?}")),
        }
    }

    /// What an experiment may leave different: where a database serves from without a failback, and which instances a
    /// group that replaces them has.
    fn comparable(&self, fail_back: bool) -> BTreeMap<Resource, State> {
        let mut states = self.0.clone();
        states.retain(|resource, _| !matches!(resource.id.as_str(), "i-8" | "i-9"));
        for state in states.values_mut() {
            match state {
                State::Database(database) if !fail_back => database.serves_from = None,
                State::ScalingGroup(group) => {
                    group.in_service = (0..group.in_service.len()).map(|number| number.to_string()).collect();
                }
                _ => {}
            }
        }
        states
    }
}

fn request(family: &str, targets: &serde_json::Value, faults: &serde_json::Value) -> ExperimentRequest {
    serde_json::from_value(json!({
        "id": "one", "name": "One", "type": family, "severity": "medium", "targetResources": targets,
        "faults": faults, "parameters": {"duration": 60_000, "intensity": 100, "minimumHealthy": 0},
        "rollbackPlan": [{"action": "undo-faults"}], "dryRun": false,
        "steadyState": [{"probe": "alarm-is-ok", "alarm": "steady"}],
        "postChecks": [{"probe": "data-intact", "database": "orders"}]
    }))
    .unwrap()
}

/// One experiment for each fault, and some of several.
fn experiments() -> Vec<ExperimentRequest> {
    let machines = json!({"ec2Instances": ["i-1", "i-2"]});
    let replaced = json!({"ec2Instances": ["i-8", "i-9"]});
    let group = json!({"autoScalingGroups": ["web"]});
    let balanced = json!({"targetGroups": ["arn:tg"]});
    let one = |fault: &str| json!([{"fault": fault}]);
    vec![
        request(
            "database",
            &json!({"rdsInstances": ["orders"]}),
            &json!([{"fault": "rds-failover", "failBack": true}]),
        ),
        request("database", &json!({"rdsInstances": ["orders"]}), &json!([])),
        request("database", &json!({"rdsInstances": ["orders"]}), &one("rds-reboot")),
        request("database", &json!({"rdsInstances": ["orders"]}), &one("rds-stop")),
        request(
            "database",
            &json!({"rdsClusters": ["till"]}),
            &json!([{"fault": "cluster-failover", "failBack": true}]),
        ),
        request("database", &json!({"rdsClusters": ["till"]}), &one("cluster-stop")),
        request("infrastructure", &machines, &one("ec2-stop")),
        request("infrastructure", &machines, &one("ec2-reboot")),
        request("infrastructure", &replaced, &one("ec2-terminate")),
        request(
            "infrastructure",
            &group,
            &json!([{"fault": "asg-suspend", "processes": ["Launch", "AZRebalance"]}]),
        ),
        request("infrastructure", &group, &json!([{"fault": "asg-capacity", "desired": 0}])),
        request("network", &balanced, &one("targets-deregister")),
        request("network", &balanced, &json!([{"fault": "zone-drain", "zone": "a"}])),
        request("network", &machines, &json!([{"fault": "security-group-detach", "securityGroup": "sg-1"}])),
        request(
            "network",
            &machines,
            &json!([{"fault": "security-group-isolate", "securityGroup": "sg-none"}]),
        ),
        request("application", &json!({"functions": ["checkout", "mail"]}), &one("function-throttle")),
        request(
            "regional",
            &json!({"regions": ["us-east-1"], "rdsInstances": ["orders"], "autoScalingGroups": ["web"],
                "ec2Instances": ["i-8"], "targetGroups": ["arn:tg"], "functions": ["mail"]}),
            // The group launches nothing while its instance is replaced: putting back must not wait for one before the other.
            &json!([{"fault": "asg-suspend", "processes": ["Launch"]}, {"fault": "ec2-terminate"},
                {"fault": "rds-stop"}, {"fault": "targets-deregister"}, {"fault": "function-throttle"},
                {"fault": "region-unreachable"}]),
        ),
    ]
}

/// What goes wrong at one call of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// It dies before it writes.
    DiesBeforeWriting,
    /// It dies after the journal's entry, before the change.
    DiesBeforeTheChange,
    /// It dies after the change, before it writes that it was made.
    DiesAfterTheChange,
    /// AWS refuses.
    Refused,
    /// The change is made, and the answer is lost.
    AnswerLost,
}

const TROUBLES: [Trouble; 5] = [
    Trouble::DiesBeforeWriting,
    Trouble::DiesBeforeTheChange,
    Trouble::DiesAfterTheChange,
    Trouble::Refused,
    Trouble::AnswerLost,
];

/// What people and the system do meanwhile.
#[derive(Debug, Clone, Copy, Default)]
struct Meanwhile {
    /// At which call the emergency stop is set.
    stop_at: Option<usize>,
    /// At which call a stop condition fails.
    condition_at: Option<usize>,
    /// Until which call the steady state is lost; it is back at the latest when everything is put back.
    shaken_until: usize,
}

fn finding(probe: Probe, passed: bool, at: Timestamp) -> Finding {
    let verdict = if passed { Verdict::Passed } else { Verdict::Failed };
    let intact = matches!(probe, Probe::DataIntact { .. }).then_some(passed);
    Finding { probe, verdict, detail: "seen".to_owned(), intact, at }
}

/// Runs an experiment to its end with runners that meet `trouble(call)`, and returns the journal, the world and the calls.
fn run(
    request: &ExperimentRequest,
    meanwhile: Meanwhile,
    trouble: impl Fn(usize) -> Trouble,
) -> (Journal, World, usize) {
    request.check(&limits()).unwrap();
    let mut world = World::new();
    let plan = plan::resolve(request, &limits(), &operation(), &world.seen()).unwrap();
    let mut journal = Journal::new(&operation(), &execution(), plan, Vec::new(), start());
    let mut holder = execution().to_string();
    let mut now = start();
    let mut stopped_while_it_ran = false;
    for call in 0..2_000 {
        now += SignedDuration::from_secs(5);
        if call % 3 == 0 {
            world.tick();
        }
        if !journal.is_open() || journal.status == Phase::Stuck {
            let completed = journal.reason == Some(Reason::Completed);
            assert!(!(stopped_while_it_ran && completed), "it did not hear the emergency stop");
            return (journal, world, call);
        }
        stopped_while_it_ran |= matches!(journal.status, Phase::Injecting | Phase::Observing)
            && meanwhile.stop_at.is_some_and(|at| call >= at);
        if journal.holder != holder {
            journal = journal.take(&holder, now).unwrap();
        }
        let stop = EmergencyStop {
            operation_id: EmergencyStop::KEY.to_owned(),
            in_force: meanwhile.stop_at.is_some_and(|at| call >= at),
            by: "ada".to_owned(),
            reason: "enough".to_owned(),
            at: start(),
            set_at: None,
            version: 1,
        };
        let failed = meanwhile.condition_at.is_some_and(|at| call >= at);
        let conditions = [finding(Probe::AlarmIsOk { alarm: "stop".to_owned(), region: None }, !failed, now)];
        let calm = call >= meanwhile.shaken_until || journal.status == Phase::Recovering;
        let steady = [finding(request.steady_state[0].clone(), calm, now)];
        let checks = [finding(request.post_checks[0].clone(), true, now)];
        let states = journal.plan.watched().into_iter().map(|at| {
            let state = world.0.get(&at).cloned();
            (at, state)
        });
        let states = states.collect();
        let sight = Sight {
            stop: Some(&stop),
            states: &states,
            conditions: &conditions,
            steady: &steady,
            checks: &checks,
        };
        let trouble = trouble(call);
        let decision = journal.decide(&sight, now);
        let dies = |journal: &Journal, holder: &mut String, now: &mut Timestamp| {
            *holder = format!("watchdog {call}");
            assert!(journal.take(holder, *now).is_err() || journal.lease_until <= *now, "a lease is kept");
            *now = (*now).max(journal.lease_until) + SignedDuration::from_secs(1);
        };
        if trouble == Trouble::DiesBeforeWriting {
            dies(&journal, &mut holder, &mut now);
            continue;
        }
        match decision {
            Decision::Write(next) => {
                assert_eq!(next.version, journal.version + 1);
                journal = *next;
            }
            Decision::Wait { seconds, .. } => {
                assert!((1..=10).contains(&seconds));
                now += SignedDuration::from_secs(i64::from(seconds));
                assert!(now < journal.lease_until, "nobody may take over while it is waited for");
            }
            Decision::Over => return (journal, world, call),
            Decision::Change { before, entry, change, resource } => {
                journal = *before;
                assert_ne!(
                    journal.entries[entry].status,
                    StepStatus::Planned,
                    "the undo is written down first"
                );
                if trouble == Trouble::DiesBeforeTheChange {
                    dies(&journal, &mut holder, &mut now);
                    continue;
                }
                let answer = match trouble {
                    Trouble::Refused => Err("Throttling".to_owned()),
                    _ => world.change(&resource, &change),
                };
                if trouble == Trouble::DiesAfterTheChange {
                    dies(&journal, &mut holder, &mut now);
                    continue;
                }
                let answer =
                    if trouble == Trouble::AnswerLost { Err("timed out".to_owned()) } else { answer };
                journal = match answer {
                    Ok(()) => journal.made(entry, now),
                    Err(error) => journal.refused(entry, &error, now),
                };
            }
        }
    }
    unreachable!("it never ended: {:#?}", journal.entries);
}

fn assert_put_back(request: &ExperimentRequest, journal: &Journal, world: &World, how: &str) {
    let fail_back = request.faults().iter().any(|fault| format!("{fault:?}").contains("true"));
    let name = &request.faults()[0];
    assert_eq!(journal.status, Phase::Ended, "{name:?} {how}: {:#?}", journal.entries);
    assert!(journal.commands().is_empty(), "{name:?} {how}");
    let mut settled = world.clone();
    (0..5).for_each(|_| settled.tick());
    assert_eq!(settled.comparable(fail_back), World::new().comparable(fail_back), "{name:?} {how}");
}

#[test]
fn every_fault_is_put_back_when_its_time_is_over() {
    for request in experiments() {
        let (journal, world, _) = run(&request, Meanwhile::default(), |_| Trouble::None);
        assert_put_back(&request, &journal, &world, "undisturbed");
        let report = report(&journal, Known::Nothing).unwrap();
        assert_eq!((report.status, report.reason), (Outcome::Completed, Some(Reason::Completed)));
        assert!(report.rollback_executed && report.metrics.recovery_time.is_some());
        assert_eq!(report.metrics.data_integrity, Some(true));
        let lasted = journal.rolling_back_at.unwrap().duration_since(journal.injected_at.unwrap());
        assert!((60..=75).contains(&lasted.as_secs()), "{lasted}");
    }
}

#[test]
fn a_runner_that_dies_anywhere_is_finished_by_another() {
    for request in experiments() {
        let (_, _, calls) = run(&request, Meanwhile::default(), |_| Trouble::None);
        for at in 0..calls {
            for trouble in TROUBLES {
                let (journal, world, _) =
                    run(
                        &request,
                        Meanwhile::default(),
                        |call| if call == at { trouble } else { Trouble::None },
                    );
                assert_put_back(&request, &journal, &world, &format!("{trouble:?} at call {at}"));
            }
        }
    }
}

#[test]
fn the_emergency_stop_ends_every_experiment_at_every_point() {
    for request in experiments() {
        let (_, _, calls) = run(&request, Meanwhile::default(), |_| Trouble::None);
        for at in 0..calls {
            let meanwhile = Meanwhile { stop_at: Some(at), ..Meanwhile::default() };
            let (journal, world, _) = run(&request, meanwhile, |_| Trouble::None);
            assert_put_back(&request, &journal, &world, &format!("stopped at call {at}"));
            let outcome = report(&journal, Known::Nothing).unwrap().status;
            assert!(matches!(outcome, Outcome::Aborted | Outcome::Completed), "{outcome:?}");
        }
        let first = Meanwhile { stop_at: Some(0), ..Meanwhile::default() };
        let (journal, _, _) = run(&request, first, |_| Trouble::None);
        assert!(
            journal.entries.iter().all(|entry| entry.status == StepStatus::Planned),
            "nothing was touched"
        );
        assert!(!report(&journal, Known::Nothing).unwrap().rollback_executed);
    }
}

#[test]
fn what_takes_longer_than_it_may_is_ended_even_before_all_faults_are_in() {
    for request in experiments() {
        let world = World::new();
        let plan = plan::resolve(&request, &limits(), &operation(), &world.seen()).unwrap();
        let journal = Journal::new(&operation(), &execution(), plan, Vec::new(), start());
        let states =
            journal.plan.watched().into_iter().map(|at| (at.clone(), world.0.get(&at).cloned())).collect();
        let sight = Sight { stop: None, states: &states, conditions: &[], steady: &[], checks: &[] };
        let last = journal.deadline - SignedDuration::from_secs(1);
        assert!(matches!(journal.decide(&sight, last), Decision::Change { .. }), "{:?}", request.faults());
        let Decision::Write(next) = journal.decide(&sight, journal.deadline) else { unreachable!() };
        assert_eq!((next.status, &next.reason), (Phase::RollingBack, &Some(Reason::TooLong)));
    }
}

#[test]
fn a_person_is_called_about_what_is_stuck_and_then_every_hour() {
    let request = &experiments()[0];
    let (ended, _, _) = run(request, Meanwhile::default(), |_| Trouble::None);
    let minutes = |minutes: i64| start() + SignedDuration::from_mins(minutes);
    assert_eq!(ended.page(minutes(0)), None, "it is over");
    let stuck = Journal { status: Phase::Stuck, ..ended };
    let paged = stuck.page(minutes(0)).unwrap();
    assert_eq!((paged.version, paged.paged_at), (stuck.version + 1, Some(minutes(0))));
    assert_eq!(paged.page(minutes(59)), None);
    assert_eq!(paged.page(minutes(60)).unwrap().paged_at, Some(minutes(60)));
}

#[test]
fn a_stopped_database_says_when_it_starts_by_itself() {
    for (index, stops) in [(1, false), (3, true), (5, true), (6, false)] {
        let (ended, _, _) = run(&experiments()[index], Meanwhile::default(), |_| Trouble::None);
        let mut entry = ended.entries[0].clone();
        assert_eq!(entry.starts_by_itself_at(), None, "it is put back");
        entry.status = StepStatus::Made;
        let week = SignedDuration::from_hours(7 * 24);
        assert_eq!(entry.starts_by_itself_at(), entry.begun_at.filter(|_| stops).map(|at| at + week));
    }
}

#[test]
fn a_stop_condition_ends_an_experiment_early() {
    for request in experiments() {
        let meanwhile = Meanwhile { condition_at: Some(4), ..Meanwhile::default() };
        let (journal, world, _) = run(&request, meanwhile, |_| Trouble::None);
        assert_put_back(&request, &journal, &world, "with a failing stop condition");
        let report = report(&journal, Known::Nothing).unwrap();
        assert_eq!(report.status, Outcome::RolledBack);
        assert!(matches!(report.reason, Some(Reason::StopCondition(_))));
    }
}

#[test]
fn a_system_that_comes_back_too_late_deviates() {
    let mut request = experiments()[0].clone();
    let throughout = Meanwhile { shaken_until: usize::MAX, ..Meanwhile::default() };
    for (patience, outcome) in [(900, Outcome::Completed), (10, Outcome::Deviated)] {
        request.parameters.recovery_seconds = patience;
        let (journal, _, _) = run(&request, throughout, |_| Trouble::None);
        let report = report(&journal, Known::Nothing).unwrap();
        assert_eq!((report.status, report.during.len()), (outcome, 1));
        let taken_out = journal.restored_at.unwrap().duration_since(journal.rolling_back_at.unwrap());
        assert_eq!(report.metrics.recovery_time, i64::try_from(taken_out.as_millis()).ok());
        assert!(report.metrics.outage > report.metrics.recovery_time);
    }
}

#[test]
fn what_comes_back_by_itself_is_measured_from_the_first_change() {
    let request = &experiments()[1];
    let briefly = Meanwhile { shaken_until: 6, ..Meanwhile::default() };
    let (journal, _, _) = run(request, briefly, |_| Trouble::None);
    let report = report(&journal, Known::Nothing).unwrap();
    assert_eq!(report.status, Outcome::Completed);
    assert!(journal.restored_at < journal.rolling_back_at);
    let since = journal.restored_at.unwrap().duration_since(journal.entries[0].begun_at.unwrap());
    assert_eq!(report.metrics.recovery_time, i64::try_from(since.as_millis()).ok());
    assert!(report.metrics.recovery_time > Some(0) && report.metrics.outage > Some(0));
    // A database that is away is enough, and what has none needs a probe that does not pass.
    let (calm, _, _) = run(request, Meanwhile::default(), |_| Trouble::None);
    assert!(super::report::report(&calm, Known::Nothing).unwrap().metrics.outage > Some(0));
    let (calm, _, _) = run(&experiments()[15], Meanwhile::default(), |_| Trouble::None);
    assert_eq!(super::report::report(&calm, Known::Nothing).unwrap().metrics.recovery_time, Some(0));
}

#[test]
fn an_experiment_that_asks_for_its_data_is_completed_only_when_that_was_compared() {
    let mut request = experiments()[1].clone();
    request.data_check =
        Some(serde_json::from_value(json!({"database": "orders", "tolerateUntold": false})).unwrap());
    let (journal, _, _) = run(&request, Meanwhile::default(), |_| Trouble::None);
    let compared = |more: serde_json::Value| {
        let mut all = json!({"same": 2, "changed": 0, "untold": [], "different": [], "faults": [], "counted": true,
            "provenRows": 9, "covered": 100.0, "comparedAt": "2026-01-01T00:00:00Z"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Known::Compared(Box::new(serde_json::from_value(all).unwrap()))
    };
    let gone =
        json!([{"table": "shop.sale", "why": "countersUnusable", "framedRows": 4, "rows": 3, "slices": []}]);
    for (known, verdict, outcome, integrity) in [
        (compared(json!({})), data::Verdict::Intact, Outcome::Completed, Some(true)),
        (compared(json!({"untold": gone})), data::Verdict::Untold, Outcome::Deviated, None),
        (compared(json!({"different": gone})), data::Verdict::Lost, Outcome::Deviated, Some(false)),
        (Known::Failed("no connection".to_owned()), data::Verdict::NotCompared, Outcome::Deviated, None),
        (Known::Nothing, data::Verdict::NotCompared, Outcome::Deviated, None),
    ] {
        let report = report(&journal, known).unwrap();
        let found = report.data.unwrap();
        assert_eq!((found.verdict, report.status), (verdict, outcome), "{}", found.detail);
        assert_eq!(report.metrics.data_integrity, integrity, "{}", found.detail);
    }
    // What its ledger lost, no comparison brings back.
    let mut lost = journal.clone();
    for (intact, integrity) in [(Some(false), Some(false)), (None, None)] {
        for finding in lost.after.iter_mut().filter(|finding| finding.intact.is_some()) {
            (finding.verdict, finding.intact) = (Verdict::Failed, intact);
        }
        let report = report(&lost, compared(json!({}))).unwrap();
        assert_eq!(
            report.metrics.data_integrity, integrity,
            "a database that does not answer has lost nothing yet"
        );
        assert_eq!(report.status, Outcome::Deviated);
    }
    assert!(journal.plan.lines().iter().any(|line| line.contains("orders is read whole")));
}

#[test]
fn a_cancelled_experiment_is_put_back_and_cannot_be_cancelled_twice() {
    let request = &experiments()[3];
    let world = World::new();
    let plan = plan::resolve(request, &limits(), &operation(), &world.seen()).unwrap();
    let journal = Journal::new(&operation(), &execution(), plan, Vec::new(), start());
    let cancelled = journal.cancel("ada: wrong database", start()).unwrap();
    assert_eq!((cancelled.status, cancelled.version), (Phase::RollingBack, 2));
    assert_eq!(cancelled.lease_until, journal.lease_until, "whoever works on it goes on");
    assert_eq!(cancelled.cancel("again", start()), None);
}

#[test]
fn what_cannot_be_put_back_calls_a_person_with_the_commands_and_is_tried_again_later() {
    let request = &experiments()[3];
    let first = run(request, Meanwhile::default(), |_| Trouble::None).0;
    assert_eq!(first.status, Phase::Ended);
    // The stop is made; everything after it is refused.
    let (journal, mut world, _) =
        run(request, Meanwhile::default(), |call| if call == 0 { Trouble::None } else { Trouble::Refused });
    assert_eq!(journal.status, Phase::Stuck);
    let report = report(&journal, Known::Nothing).unwrap();
    assert_eq!(report.status, Outcome::Failed);
    assert_eq!(
        report.commands,
        ["aws --region us-east-1 rds start-db-instance --db-instance-identifier orders"]
    );
    let later = journal.lease_until + SignedDuration::from_mins(10);
    let again = journal.take("watchdog", later).unwrap();
    let states = world.0.clone().into_iter().map(|(at, state)| (at, Some(state))).collect();
    let sight = Sight { stop: None, states: &states, conditions: &[], steady: &[], checks: &[] };
    let Decision::Change { change, resource, .. } = again.decide(&sight, later) else { unreachable!() };
    assert_eq!(change, Change::StartDbInstance);
    world.change(&resource, &change).unwrap();
}

#[test]
fn falling_below_the_minimum_ends_the_experiment() {
    let mut request =
        request("infrastructure", &json!({"ec2Instances": ["i-1", "i-2"]}), &json!([{"fault": "ec2-stop"}]));
    request.parameters.minimum_healthy = None;
    let error = plan::resolve(&request, &limits(), &operation(), &World::new().seen()).unwrap_err();
    assert_eq!(error.name(), ErrorName::BlastRadiusExceeded);
    request.parameters.intensity = 50;
    let plan = plan::resolve(&request, &limits(), &operation(), &World::new().seen()).unwrap();
    assert_eq!(plan.steps.len(), 1);
    let journal = Journal::new(&operation(), &execution(), plan, Vec::new(), start());
    // The other one dies by itself.
    let mut states: BTreeMap<Resource, Option<State>> =
        World::new().0.into_iter().map(|(at, state)| (at, Some(state))).collect();
    for id in ["i-1", "i-2"] {
        states.insert(resource(ResourceKind::Ec2Instance, id), None);
    }
    let sight = Sight { stop: None, states: &states, conditions: &[], steady: &[], checks: &[] };
    let Decision::Write(next) = journal.decide(&sight, start()) else { unreachable!() };
    assert!(matches!(next.reason, Some(Reason::TooFewHealthy(_))));
    // Nor does it go on blind.
    let blind = BTreeMap::new();
    let sight = Sight { states: &blind, ..sight };
    let Decision::Write(next) = journal.decide(&sight, start()) else { unreachable!() };
    assert!(matches!(next.reason, Some(Reason::TooFewHealthy(_))));
}

#[test]
fn a_plan_is_the_same_for_the_same_world_and_another_for_another() {
    for request in experiments() {
        let world = World::new();
        let hash = |world: &World| {
            plan::resolve(&request, &limits(), &operation(), &world.seen()).unwrap().hash().unwrap()
        };
        assert_eq!(hash(&world), hash(&world));
    }
    let request = &experiments()[15];
    let mut other = World::new();
    other.0.insert(
        resource(ResourceKind::Function, "mail"),
        State::Function(Function { reserved_concurrency: Some(1) }),
    );
    let hash = |world: &World| {
        plan::resolve(request, &limits(), &operation(), &world.seen()).unwrap().hash().unwrap()
    };
    assert_ne!(hash(&World::new()), hash(&other));
}

type Spoil<'a> = &'a dyn Fn(&mut Seen);

#[test]
fn what_is_not_tagged_not_there_or_ours_is_not_touched() {
    let request = &experiments()[6];
    let named = resource(ResourceKind::Ec2Instance, "i-1");
    let with = |change: &dyn Fn(&mut Seen)| {
        let mut seen = World::new().seen();
        change(&mut seen);
        plan::resolve(request, &limits(), &operation(), &seen).map_err(|error| error.name())
    };
    let tags = |tags: Tags| {
        let named = named.clone();
        move |seen: &mut Seen| {
            let Some(Observed::Found(facts)) = seen.get_mut(&named) else { unreachable!() };
            facts.tags.clone_from(&tags);
        }
    };
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let cases: [(Spoil<'_>, ErrorName); 6] = [
        (&tags(Tags::new()), ErrorName::TargetNotAllowed),
        (&tags(Tags::from([tag(TAG, "denied")])), ErrorName::TargetNotAllowed),
        (&tags(Tags::from([tag(TAG, "Allowed")])), ErrorName::TargetNotAllowed),
        (
            &tags(Tags::from([tag(TAG, ALLOWED), tag("lifeboat:role", "temporary")])),
            ErrorName::TargetNotAllowed,
        ),
        (&|seen| drop(seen.insert(named.clone(), Observed::Missing)), ErrorName::TargetMissing),
        (
            &|seen| {
                let error = DrError::new(ErrorName::Throttled, "describing");
                seen.insert(named.clone(), Observed::Unreachable(error));
            },
            ErrorName::Throttled,
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(with(change), Err(expected));
    }
    let mut listed = limits();
    listed.listed.insert((ResourceKind::Ec2Instance, "i-1".to_owned()));
    let mut seen = World::new().seen();
    tags(Tags::new())(&mut seen);
    assert!(plan::resolve(request, &listed, &operation(), &seen).is_ok());
}

#[test]
fn a_fault_that_aws_would_refuse_or_that_cannot_be_put_back_is_refused() {
    let refused = |index: usize, change: &dyn Fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        let error = plan::resolve(&experiments()[index], &limits(), &operation(), &world.seen()).unwrap_err();
        assert_eq!(error.name(), ErrorName::FaultImpossible, "{error}");
    };
    let database = |change: fn(&mut Database)| {
        move |world: &mut World| {
            let Some(State::Database(database)) =
                world.0.get_mut(&resource(ResourceKind::DbInstance, "orders"))
            else {
                unreachable!()
            };
            change(database);
        }
    };
    refused(1, &database(|it| it.standby = false));
    refused(1, &database(|it| it.cluster = Some("till".to_owned())));
    refused(1, &database(|it| "modifying".clone_into(&mut it.status)));
    refused(3, &database(|it| it.replica_of = Some("other".to_owned())));
    refused(3, &database(|it| it.replicas = set(["other"])));
    let cluster = |change: fn(&mut Database)| {
        move |world: &mut World| {
            let Some(State::Database(database)) = world.0.get_mut(&resource(ResourceKind::DbCluster, "till"))
            else {
                unreachable!()
            };
            change(database);
        }
    };
    refused(5, &cluster(|it| it.replica_of = Some("other".to_owned())));
    refused(5, &cluster(|it| it.replicas = set(["other"])));
    let machine = |id: &'static str, change: fn(&mut Machine)| {
        move |world: &mut World| {
            let Some(State::Machine(machine)) = world.0.get_mut(&resource(ResourceKind::Ec2Instance, id))
            else {
                unreachable!()
            };
            change(machine);
        }
    };
    refused(6, &machine("i-1", |it| it.group = Some("web".to_owned())));
    refused(8, &machine("i-8", |it| it.group = None));
    refused(13, &machine("i-1", |it| it.security_groups = set(["sg-2"])));
    refused(13, &machine("i-2", |it| it.interfaces = 2));
}

/// A journal that is being rolled back after its first change was made at that moment, and what is looked at.
fn with_its_fault_in(request: &ExperimentRequest) -> (Journal, Resource) {
    let world = World::new();
    let plan = plan::resolve(request, &limits(), &operation(), &world.seen()).unwrap();
    let watched = plan.steps[0].watched.clone();
    let journal = Journal::new(&operation(), &execution(), plan, Vec::new(), start());
    let states = BTreeMap::from([(watched.clone(), world.0.get(&watched).cloned())]);
    let sight = Sight { stop: None, states: &states, conditions: &[], steady: &[], checks: &[] };
    let Decision::Change { before, .. } = journal.decide(&sight, start()) else { unreachable!() };
    (*before, watched)
}

/// Goes on for an hour with a resource that stays as it is. Answers the journal, and when which changes were asked for.
fn an_hour(mut journal: Journal, watched: &Resource, state: &State) -> (Journal, Vec<(i64, Change)>) {
    let states = BTreeMap::from([(watched.clone(), Some(state.clone()))]);
    let sight = Sight { stop: None, states: &states, conditions: &[], steady: &[], checks: &[] };
    let mut asked = Vec::new();
    for second in (0..3_600).step_by(5) {
        let now = start() + SignedDuration::from_secs(second);
        if journal.lease_until <= now || journal.status == Phase::Stuck {
            let holder = journal.holder.clone();
            let Ok(taken) = journal.take(&holder, now) else { continue };
            journal = taken;
        }
        match journal.decide(&sight, now) {
            Decision::Write(next) => journal = *next,
            Decision::Change { before, entry, change, .. } => {
                asked.push((second, change));
                journal = before.made(entry, now);
            }
            Decision::Wait { .. } => {}
            Decision::Over => break,
        }
        if journal.put_back_at.is_some() {
            break;
        }
    }
    (journal, asked)
}

#[test]
fn a_failover_back_is_asked_for_once_however_late_it_shows() {
    for index in [0, 4] {
        let (begun, watched) = with_its_fault_in(&experiments()[index]);
        let made = begun.made(0, start());
        let rolling = made.cancel("enough", start()).unwrap();
        // Available, and it is never shown to serve from where it did.
        let mut elsewhere = World::new().0[&watched].clone();
        if let State::Database(database) = &mut elsewhere {
            database.serves_from = Some("elsewhere".to_owned());
        }
        let (journal, asked) = an_hour(rolling.clone(), &watched, &elsewhere);
        assert_eq!(asked.len(), 1, "each is an outage: {asked:?}");
        assert_eq!(journal.entries[0].status, StepStatus::Stuck, "{:?}", journal.entries[0]);
        assert!(!journal.commands().is_empty());
        // Where nobody knows what became of the first, some more are tried, and not for ever.
        let mut unknown = rolling;
        let states = BTreeMap::from([(watched.clone(), Some(elsewhere.clone()))]);
        let sight = Sight { stop: None, states: &states, conditions: &[], steady: &[], checks: &[] };
        let mut tried = 0;
        for minute in 3..600 {
            let now = start() + SignedDuration::from_mins(minute);
            unknown = unknown.take("watchdog", now).unwrap();
            if let Decision::Change { before, .. } = unknown.decide(&sight, now) {
                tried += 1;
                unknown = *before;
            }
        }
        assert_eq!(tried, 3);
    }
}

#[test]
fn what_looks_as_it_was_is_not_believed_while_a_call_may_be_under_way() {
    let request = &experiments()[3];
    let (begun, watched) = with_its_fault_in(request);
    let calm = World::new().0[&watched].clone();
    let at = |second| start() + SignedDuration::from_secs(second);
    let put_back = |journal: Journal| {
        let (journal, asked) = an_hour(journal, &watched, &calm);
        assert_eq!(asked, []);
        journal.entries[0].put_back_at.unwrap().duration_since(start()).as_secs()
    };
    // The call was cut off after 45 seconds: what it did may show for 30 more.
    let cut = begun.refused(0, "timed out", at(45));
    assert!((75..=80).contains(&put_back(cut)));
    // The runner died, and its own execution goes on: the call is over when its function must be.
    let died = begun.cancel("the runner died", at(1)).unwrap();
    assert!((90..=95).contains(&put_back(died.clone())));
    // Somebody else took over: the lease outlasted the call.
    let taken = Journal { lease_until: at(0), ..died }.take("watchdog", at(121)).unwrap();
    assert!((151..=156).contains(&put_back(taken)));
}

#[test]
fn each_group_keeps_its_own_minimum() {
    let mut world = World::new();
    let only = BTreeSet::from([target("i-9", "a")]);
    world.0.insert(
        resource(ResourceKind::TargetGroup, "arn:small"),
        State::TargetGroup(TargetGroup { registered: only.clone(), healthy: only }),
    );
    let mut request = request(
        "network",
        &json!({"targetGroups": ["arn:tg", "arn:small"]}),
        &json!([{"fault": "zone-drain", "zone": "a"}]),
    );
    request.parameters.minimum_healthy = Some(1);
    let error = plan::resolve(&request, &limits(), &operation(), &world.seen()).unwrap_err();
    assert_eq!(error.name(), ErrorName::BlastRadiusExceeded);
    assert!(error.to_string().contains("arn:small"), "{error}");
    request.parameters.minimum_healthy = Some(0);
    let plan = plan::resolve(&request, &limits(), &operation(), &world.seen()).unwrap();
    assert_eq!(plan.guards.len(), 2);
}

#[test]
fn nothing_happens_to_the_functions_that_put_everything_back() {
    let request =
        request("application", &json!({"functions": ["checkout"]}), &json!([{"fault": "function-throttle"}]));
    let mut seen = World::new().seen();
    let checkout = resource(ResourceKind::Function, "checkout");
    let Some(Observed::Found(facts)) = seen.get_mut(&checkout) else { unreachable!() };
    facts.arn = "arn:aws:lambda:us-east-1:123456789012:function:lifeboat-chaos-runner".to_owned();
    let own = Limits { own_functions: Some("lifeboat-".to_owned()), ..limits() };
    let error = plan::resolve(&request, &own, &operation(), &seen).unwrap_err();
    assert_eq!(error.name(), ErrorName::TargetNotAllowed);
    assert!(plan::resolve(&request, &limits(), &operation(), &seen).is_ok());
}

#[test]
fn a_stop_that_was_lifted_between_two_looks_ends_what_went_on_then() {
    let (begun, watched) = with_its_fault_in(&experiments()[3]);
    let running = begun.made(0, start());
    let states = BTreeMap::from([(watched.clone(), World::new().0.get(&watched).cloned())]);
    let stop = |set_at: Timestamp| EmergencyStop {
        operation_id: EmergencyStop::KEY.to_owned(),
        in_force: false,
        by: "ada".to_owned(),
        reason: "it was nothing".to_owned(),
        at: start(),
        set_at: Some(set_at),
        version: 2,
    };
    let now = start() + SignedDuration::from_secs(5);
    for (set_at, ends) in
        [(start() + SignedDuration::from_secs(2), true), (start() - SignedDuration::from_secs(2), false)]
    {
        let stop = stop(set_at);
        let sight = Sight { stop: Some(&stop), states: &states, conditions: &[], steady: &[], checks: &[] };
        let Decision::Write(next) = running.decide(&sight, now) else { unreachable!() };
        assert_eq!(next.status == Phase::RollingBack, ends, "{:?}", next.reason);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn however_much_goes_wrong_the_world_returns_or_a_person_is_called(
        index in 0_usize..17,
        script in proptest::collection::vec(0_u8..25, 0..120),
        stop_at in proptest::option::of(0_usize..80),
    ) {
        let request = &experiments()[index];
        let trouble = |call: usize| match script.get(call) {
            Some(number) if *number < 5 => TROUBLES[usize::from(*number)],
            _ => Trouble::None,
        };
        let (journal, world, _) = run(request, Meanwhile { stop_at, ..Meanwhile::default() }, trouble);
        if journal.status == Phase::Stuck {
            prop_assert!(!journal.commands().is_empty());
            // One does not keep another from being put back.
            let over = |entry: &Entry| !matches!(entry.status, StepStatus::Begun | StepStatus::Made);
            prop_assert!(journal.entries.iter().all(over), "{:#?}", journal.entries);
        } else {
            assert_put_back(request, &journal, &world, "in a storm");
        }
    }

    #[test]
    fn a_choice_follows_from_its_seed_and_grows_with_its_intensity(
        ids in proptest::collection::btree_set("[a-z]{1,6}", 1..40),
        intensity in 1_u8..=100,
        seed in "[a-z]{1,8}",
    ) {
        let forward: Vec<String> = ids.iter().cloned().collect();
        let backward: Vec<String> = ids.iter().rev().cloned().collect();
        let chosen: Vec<String> = choose(&forward, intensity, &seed, Clone::clone).into_iter().cloned().collect();
        let again: Vec<String> = choose(&backward, intensity, &seed, Clone::clone).into_iter().cloned().collect();
        prop_assert_eq!(&chosen, &again);
        prop_assert_eq!(chosen.len(), (ids.len() * usize::from(intensity)).div_ceil(100));
        if intensity < 100 {
            let more = choose(&forward, intensity + 1, &seed, Clone::clone);
            prop_assert!(chosen.iter().all(|id| more.contains(&id)));
        }
    }
}

/// The only step of an experiment on a machine of a group, and its group.
fn terminates_one(world: &World) -> Result<super::put_back::Step, DrError> {
    let mut request = experiments()[8].clone();
    request.parameters.minimum_healthy = Some(0);
    plan::resolve(&request, &limits(), &operation(), &world.seen()).map(|plan| plan.steps[0].clone())
}

fn web(world: &mut World) -> &mut ScalingGroup {
    match world.0.get_mut(&resource(ResourceKind::ScalingGroup, "web")) {
        Some(State::ScalingGroup(group)) => group,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn what_is_terminated_is_replaced_by_a_group_that_may_be_broken_and_launches() {
    assert!(terminates_one(&World::new()).is_ok());
    let mut suspended = World::new();
    web(&mut suspended).suspended.insert("Launch".to_owned());
    assert_eq!(terminates_one(&suspended).unwrap_err().name(), ErrorName::FaultImpossible);
    // IAM asks for the tag of the group, not of the machine.
    let mut seen = World::new().seen();
    let group = resource(ResourceKind::ScalingGroup, "web");
    let Some(Observed::Found(facts)) = seen.get_mut(&group) else { unreachable!() };
    facts.tags.clear();
    let refused = plan::resolve(&experiments()[8], &limits(), &operation(), &seen).unwrap_err();
    assert_eq!(refused.name(), ErrorName::TargetNotAllowed);
    assert!(refused.what().contains("web"), "{refused}");
    let mut listed = limits();
    listed.listed.insert((ResourceKind::ScalingGroup, "web".to_owned()));
    assert!(plan::resolve(&experiments()[8], &listed, &operation(), &seen).is_ok());
}

#[test]
fn a_group_is_refilled_when_it_has_what_it_wants_now() {
    use super::put_back::PutBack;
    let step = terminates_one(&World::new()).unwrap();
    for (desired, in_service, refilled) in [
        (2, set(["i-9", "i-7"]), true),
        (2, set(["i-7"]), false),
        (1, set(["i-7"]), true),
        (1, set([]), false),
    ] {
        let mut world = World::new();
        let group = web(&mut world);
        (group.desired, group.in_service) = (desired, in_service);
        let now = State::ScalingGroup(group.clone());
        assert_eq!(step.put_back(Some(&now)) == PutBack::AsRecorded, refilled, "{now:?}");
    }
}

#[test]
fn a_machine_that_its_group_replaced_took_its_fault_with_it_and_any_other_one_calls_a_person() {
    use super::put_back::PutBack;
    let plan = |id: &str| {
        let fault = json!([{"fault": "security-group-isolate", "securityGroup": "sg-none"}]);
        let request = request("network", &json!({"ec2Instances": [id]}), &fault);
        plan::resolve(&request, &limits(), &operation(), &World::new().seen()).unwrap().steps[0].clone()
    };
    let (of_group, alone) = (plan("i-9"), plan("i-1"));
    let State::Machine(recorded) = of_group.recorded.clone() else { unreachable!() };
    let gone =
        State::Machine(Machine { state: "terminated".to_owned(), security_groups: set([]), ..recorded });
    for now in [None, Some(&gone)] {
        assert_eq!(of_group.put_back(now), PutBack::AsRecorded);
        assert!(matches!(alone.put_back(now), PutBack::Impossible(_)));
    }
}

#[test]
fn a_person_is_told_what_could_not_be_done_and_then_the_undo() {
    // Somebody stops a database that is to be failed back.
    let request = experiments()[0].clone();
    let world = World::new();
    let plan = plan::resolve(&request, &limits(), &operation(), &world.seen()).unwrap();
    let mut journal = Journal::new(&operation(), &execution(), plan, Vec::new(), start());
    journal.status = Phase::RollingBack;
    journal.rolling_back_at = Some(start());
    journal.entries[0].status = StepStatus::Made;
    let stopped = Database { status: "stopped".to_owned(), ..Database::default() };
    let watched = journal.entries[0].step.watched.clone();
    let states = BTreeMap::from([(watched, Some(State::Database(stopped)))]);
    let sight = Sight { stop: None, states: &states, conditions: &[], steady: &[], checks: &[] };
    let Decision::Change { before, .. } = journal.decide(&sight, start()) else { unreachable!() };
    let commands = before.commands();
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert!(commands[0].contains("rds start-db-instance --db-instance-identifier orders"), "{commands:?}");
    assert!(commands[1].contains("--force-failover"), "{commands:?}");
}
