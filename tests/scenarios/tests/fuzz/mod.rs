//! Inputs that nobody would write, made from the samples: whatever they are, a request is read or refused by name.
//!
//! Receivers are those of the samples, so that a new function is here as soon as it has samples. Seeds are fixed: a
//! failure is the same on every machine.

use dr_core::{ErrorClass, ErrorName};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed};
use serde_json::{Map, Value, json};

use super::{FUNCTIONS, MACHINES, read, samples};

/// What a message may hold at most, in bytes: Step Functions keeps 32 KiB of a cause.
const LONGEST_MESSAGE: usize = 4096;
/// Passes as no identifier, Region, ARN, time or word of ours.
const CANARY: &str = "correct horse \"battery\", expected `staple`";

fn config(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(20_261_125), failure_persistence: None, ..Config::default() }
}

/// Good and bad samples of everything that takes input.
fn seeds() -> Vec<(&'static str, Value)> {
    FUNCTIONS
        .into_iter()
        .chain(MACHINES)
        .flat_map(|receiver| {
            let all =
                samples(receiver).into_values().chain(samples(&format!("{receiver}/bad")).into_values());
            all.map(move |sample| (receiver, sample)).collect::<Vec<_>>()
        })
        .collect()
}

/// One change of a document, at a place that is chosen when it is known.
#[derive(Debug, Clone)]
enum Mutation {
    Drop(Index),
    Rename(Index, String),
    Double(Index, String),
    Replace(Index, Value),
    Swap(Index, Index),
    Wrap(Index, u8, bool),
    Repeat(Index, u16),
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            "",
            " ",
            "null",
            "0",
            "-1",
            "true",
            "{}",
            "\u{0}",
            "\u{feff}",
            "\u{202e}abc",
            "ÅΩ漢字🦀",
            "a\u{301}",
            "';drop table t--",
            "${x}",
            "{% $states.input %}",
            "../../etc",
            "us-east-1",
            "rds:",
            "arn:aws:rds:::",
            "arn:aws:states:us-east-1:123456789012:execution:m:e",
            "backup-0123456789abcdef",
            "1e999",
            "NaN",
            "2026-01-02T03:04:05Z",
            "+999999-12-31T23:59:59Z",
            "-009999-01-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
        ])
        .prop_map(str::to_owned),
        (1usize..6000).prop_map(|length| "x".repeat(length)),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![0.5, -0.0, 1e308, 5e-324, 256.0, 4_294_967_296.0]).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        any::<Index>().prop_map(Mutation::Drop),
        (any::<Index>(), text()).prop_map(|(at, name)| Mutation::Rename(at, name)),
        (any::<Index>(), text()).prop_map(|(at, name)| Mutation::Double(at, name)),
        (any::<Index>(), anything()).prop_map(|(at, value)| Mutation::Replace(at, value)),
        (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Mutation::Swap(one, other)),
        (any::<Index>(), 1u8..110, any::<bool>()).prop_map(|(at, deep, list)| Mutation::Wrap(at, deep, list)),
        (any::<Index>(), 2u16..400).prop_map(|(at, times)| Mutation::Repeat(at, times)),
    ]
}

/// Where everything in a document is, as JSON pointers.
fn places(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    walk(item, &format!("{at}/{index}"), found);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    walk(member, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

/// The object around a place, and the name of the member there.
fn member<'v>(value: &'v mut Value, place: &str) -> Option<(&'v mut Map<String, Value>, String)> {
    let (around, name) = place.rsplit_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    Some((value.pointer_mut(around)?.as_object_mut()?, name))
}

fn mutate(value: &mut Value, mutation: Mutation) {
    let places = places(value);
    let pick = |index: &Index| index.get(&places).clone();
    match mutation {
        Mutation::Drop(at) => {
            if let Some((members, name)) = member(value, &pick(&at)) {
                members.remove(&name);
            }
        }
        Mutation::Rename(at, to) => {
            if let Some((members, name)) = member(value, &pick(&at))
                && let Some(moved) = members.remove(&name)
            {
                members.insert(to, moved);
            }
        }
        Mutation::Double(at, to) => {
            if let Some((members, name)) = member(value, &pick(&at)) {
                let copy = members[&name].clone();
                members.insert(to, copy);
            }
        }
        Mutation::Replace(at, with) => *value.pointer_mut(&pick(&at)).unwrap() = with,
        Mutation::Swap(one, other) => {
            let (one, other) = (pick(&one), pick(&other));
            let (a, b) = (value.pointer(&one).unwrap().clone(), value.pointer(&other).unwrap().clone());
            *value.pointer_mut(&one).unwrap() = b;
            // Gone when it was inside the first one.
            if let Some(place) = value.pointer_mut(&other) {
                *place = a;
            }
        }
        Mutation::Wrap(at, deep, list) => {
            let place = value.pointer_mut(&pick(&at)).unwrap();
            for _ in 0..deep {
                let inner = place.take();
                *place = if list { json!([inner]) } else { json!({"x": inner}) };
            }
        }
        Mutation::Repeat(at, times) => {
            let place = value.pointer_mut(&pick(&at)).unwrap();
            *place = Value::Array(vec![place.take(); usize::from(times)]);
        }
    }
}

/// It is read, or refused by a name that trying again does not help against, with a place, in few words.
fn is_read_or_refused(receiver: &str, input: Value) -> Result<(), TestCaseError> {
    let Err(error) = read(receiver, input) else { return Ok(()) };
    let message = error.to_string();
    prop_assert_ne!(error.name().class(), ErrorClass::Retry, "{}", message);
    prop_assert_ne!(error.name(), ErrorName::Internal, "{}", message);
    prop_assert!(message.len() <= LONGEST_MESSAGE, "{} bytes: {message:.200}", message.len());
    prop_assert!(message.contains('`') || message.contains("at the top"), "no place: {}", message);
    Ok(())
}

#[test]
fn samples_that_were_mutated_are_read_or_refused_by_name() {
    let seeds = seeds();
    let strategy = (any::<Index>(), prop::collection::vec(mutation(), 1..5));
    proptest!(config(6000), |((seed, mutations) in strategy)| {
        let (receiver, mut input) = seed.get(&seeds).clone();
        for mutation in mutations {
            mutate(&mut input, mutation);
        }
        is_read_or_refused(receiver, input)?;
    });
}

#[test]
fn arbitrary_json_is_read_or_refused_by_name_by_every_receiver() {
    let receivers: Vec<&str> = FUNCTIONS.into_iter().chain(MACHINES).collect();
    proptest!(config(1500), |((receiver, input) in (prop::sample::select(receivers), anything()))| {
        is_read_or_refused(receiver, input)?;
    });
}

#[test]
fn no_text_of_a_caller_is_repeated_in_a_refusal() {
    let mut refused = 0;
    for (receiver, sample) in seeds() {
        for place in places(&sample) {
            let mut input = sample.clone();
            *input.pointer_mut(&place).unwrap() = json!(CANARY);
            if let Err(error) = read(receiver, input) {
                refused += 1;
                let message = error.to_string();
                assert!(
                    !message.contains("horse") && !message.contains("staple"),
                    "{receiver} {place}: {message}"
                );
            }
        }
    }
    assert!(refused > 200, "only {refused} refusals");
}
