//! State machines as graphs: which states there are, where they lead, what they call.
//!
//! Knows the part of the Amazon States Language that Lifeboat uses (JSONata, no Parallel), and does not evaluate
//! expressions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::files;

/// A state machine, or the inside of a Map.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The file's name without its endings; for the inside of a Map, with `/` and the Map's name.
    pub name: String,
    /// The definition.
    pub definition: Value,
    /// Where it starts.
    pub start: String,
    /// Its states by name.
    pub states: BTreeMap<String, State>,
}

/// A state.
#[derive(Debug, Clone)]
pub struct State {
    /// Its name.
    pub name: String,
    /// Its definition.
    pub definition: Value,
}

impl Machine {
    /// Every machine of `stepfunctions/`, each followed by the insides of its Maps.
    ///
    /// # Errors
    /// The file with what is wrong.
    pub fn all() -> Result<Vec<Self>, String> {
        let mut machines = Vec::new();
        for path in files::list("stepfunctions", ".asl.json")? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().replace(".asl.json", "");
            let machine = Self::read(&name, files::json(&path)?)?;
            let inside = machine.insides()?;
            machines.push(machine);
            machines.extend(inside);
        }
        Ok(machines)
    }

    /// A machine by its definition.
    ///
    /// # Errors
    /// What is missing.
    pub fn read(name: &str, definition: Value) -> Result<Self, String> {
        let start = definition["StartAt"].as_str().ok_or(format!("{name}: no StartAt"))?.to_owned();
        let states = definition["States"].as_object().ok_or(format!("{name}: no States"))?;
        let states = states
            .iter()
            .map(|(name, state)| (name.clone(), State { name: name.clone(), definition: state.clone() }))
            .collect();
        Ok(Self { name: name.to_owned(), definition, start, states })
    }

    fn insides(&self) -> Result<Vec<Self>, String> {
        self.states
            .values()
            .filter(|state| state.kind() == "Map")
            .map(|state| {
                Self::read(
                    &format!("{}/{}", self.name, state.name),
                    state.definition["ItemProcessor"].clone(),
                )
            })
            .collect()
    }

    /// The file's name without its endings.
    pub fn file(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The states that can be reached from these, themselves among them, without entering `avoided`.
    pub fn reachable<'a>(
        &'a self,
        from: impl IntoIterator<Item = &'a str>,
        avoided: &str,
    ) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&str> = from.into_iter().collect();
        while let Some(name) = next.pop() {
            if name != avoided
                && reached.insert(name)
                && let Some(state) = self.states.get(name)
            {
                next.extend(state.leads_to());
            }
        }
        reached
    }
}

impl State {
    /// Its `Type`.
    pub fn kind(&self) -> &str {
        self.definition["Type"].as_str().unwrap_or_default()
    }

    /// Where it can lead: Next, the choices with their default, the catchers.
    pub fn leads_to(&self) -> Vec<&str> {
        let definition = &self.definition;
        let choices = definition["Choices"].as_array().into_iter().flatten().map(|choice| &choice["Next"]);
        [&definition["Next"], &definition["Default"]]
            .into_iter()
            .chain(choices)
            .filter_map(Value::as_str)
            .chain(self.catches_to())
            .collect()
    }

    /// Where its errors lead.
    pub fn catches_to(&self) -> Vec<&str> {
        let catchers = self.definition["Catch"].as_array().into_iter().flatten();
        catchers.filter_map(|catcher| catcher["Next"].as_str()).collect()
    }

    /// Whether the machine can end in it.
    pub fn is_end(&self) -> bool {
        matches!(self.kind(), "Succeed" | "Fail") || self.definition["End"] == true
    }

    /// The function that it invokes, by the name of its crate, with the action of its payload and what is in that.
    pub fn call(&self) -> Option<(String, String, &Value)> {
        let arguments = &self.definition["Arguments"];
        let function =
            arguments["FunctionName"].as_str()?.strip_prefix("${")?.strip_suffix("FunctionArn}")?;
        let (action, body) = arguments["Payload"].as_object()?.iter().next()?;
        Some((snake_case(function), action.clone(), body))
    }

    /// What `Resource` names, without the common beginning: `lambda:invoke`, `sns:publish`, …
    pub fn resource(&self) -> &str {
        self.definition["Resource"].as_str().unwrap_or_default().trim_start_matches("arn:aws:states:::")
    }

    /// Whether it ends by a call from outside, and not by its function's answer.
    pub fn waits_for_a_token(&self) -> bool {
        self.resource().ends_with(".waitForTaskToken")
    }

    /// The error names that its retriers list.
    pub fn retries(&self) -> BTreeSet<&str> {
        let retriers = self.definition["Retry"].as_array().into_iter().flatten();
        retriers
            .flat_map(|r| r["ErrorEquals"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect()
    }
}

/// `UpdateState` → `update_state`.
pub fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Every string in a JSON value, keys excepted.
pub fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(members) => members.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}
