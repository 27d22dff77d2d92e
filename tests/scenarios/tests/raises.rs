//! `raises.json`, from which the scenario harness takes what can go wrong: its names are the enum's, all of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use dr_core::{ErrorClass, ErrorName};
use scenarios::{Machine, files};
use serde_json::Value;

fn raises() -> Value {
    files::json("tests/scenarios/raises.json").unwrap()
}

fn names(value: &Value) -> BTreeSet<String> {
    value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_error_is_raised_by_a_function_or_it_is_explained_why_not() {
    let raises = raises();
    let mut thrown = BTreeSet::new();
    for function in raises["functions"].as_object().unwrap().values() {
        match function {
            Value::Array(_) => thrown.extend(names(function)),
            _ => thrown.extend(function.as_object().unwrap().values().flat_map(names)),
        }
    }
    let explained: BTreeSet<String> =
        raises["not raised by a function"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(thrown.intersection(&explained).count(), 0, "explained, and raised all the same");
    let all: BTreeSet<String> = ErrorName::ALL.iter().map(ToString::to_string).collect();
    let listed: BTreeSet<String> = thrown.union(&explained).cloned().collect();
    assert_eq!(listed, all, "raises.json (left) and the enum (right) differ");
}

#[test]
fn every_state_that_calls_a_function_has_errors_of_each_class_to_fail_with() {
    let raises = raises();
    let every = names(&raises["functions"]["every"]);
    for machine in Machine::all().unwrap() {
        for state in machine.states.values() {
            let Some((function, action, _)) = state.call() else { continue };
            let own = &raises["functions"][&function][&action];
            assert!(own.is_array(), "raises.json lacks the action {action} of {function} ({})", state.name);
            let mut classes = BTreeSet::new();
            for name in names(own).union(&every) {
                classes.insert(ErrorName::parse(name).unwrap().class().to_string());
            }
            let wanted =
                [ErrorClass::Operator, ErrorClass::Retry, ErrorClass::Terminal].map(|c| c.to_string());
            assert_eq!(classes, BTreeSet::from(wanted), "{function} {action}");
        }
    }
}

#[test]
fn every_machine_has_a_description_for_the_scenario_harness_or_a_reason_why_not() {
    let machines: BTreeSet<String> = Machine::all().unwrap().iter().map(|m| m.file().to_owned()).collect();
    let described: BTreeSet<String> = files::list("tests/scenarios/machines", ".json")
        .unwrap()
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let excused = files::json("tests/scenarios/golden/undescribed-machines.json").unwrap();
    let excused: BTreeSet<String> = excused.as_object().unwrap().keys().cloned().collect();
    assert_eq!(described.intersection(&excused).count(), 0, "described, and excused all the same");
    assert_eq!(
        machines,
        described.union(&excused).cloned().collect(),
        "machines (left), and their descriptions in tests/scenarios/machines (right): see tests/scenarios/README.md"
    );
}
