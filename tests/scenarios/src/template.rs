//! The SAM template, with CloudFormation's short tags (`!Ref`) written out (`{"Ref": …}`).
//!
//! Does not evaluate anything: an `!If` stays one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use serde_norway::Value as Yaml;

use crate::files;

/// The template.
#[derive(Debug, Clone)]
pub struct Template {
    /// All of it.
    pub document: Value,
}

impl Template {
    /// Reads `template.yaml`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read() -> Result<Self, String> {
        let yaml: Yaml = serde_norway::from_str(&files::text("template.yaml")?)
            .map_err(|e| format!("template.yaml: {e}"))?;
        Ok(Self { document: long_form(&yaml)? })
    }

    /// The resources of a type, by their logical ids.
    pub fn resources(&self, kind: &str) -> BTreeMap<&str, &Value> {
        let all = self.document["Resources"].as_object().into_iter().flatten();
        all.filter(|(_, resource)| resource["Type"] == kind)
            .map(|(id, resource)| (id.as_str(), resource))
            .collect()
    }

    /// A resource's properties; null when there is none of this name.
    pub fn properties(&self, id: &str) -> &Value {
        &self.document["Resources"][id]["Properties"]
    }

    /// A function's property, or the one that all functions have.
    pub fn of_function(&self, id: &str, property: &str) -> &Value {
        match &self.properties(id)[property] {
            Value::Null => &self.document["Globals"]["Function"][property],
            own => own,
        }
    }

    /// A role's statements, those under a condition among them.
    pub fn statements(&self, role: &str) -> Vec<&Value> {
        let policies = self.properties(role)["Policies"].as_array().into_iter().flatten();
        policies
            .flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().into_iter().flatten())
            .map(|statement| match statement.get("Fn::If") {
                Some(choice) => &choice[1],
                None => statement,
            })
            .collect()
    }
}

/// One string or a list of them, as policies and others allow.
pub fn one_or_many(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |items| items.iter().collect())
}

fn long_form(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(it) => json!(it),
        Yaml::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => json!(whole),
            (None, float) => json!(float),
        },
        Yaml::String(text) => json!(text),
        Yaml::Sequence(items) => Value::Array(items.iter().map(long_form).collect::<Result<_, _>>()?),
        Yaml::Mapping(members) => {
            let mut object = Map::new();
            for (key, value) in members {
                let key = key.as_str().ok_or(format!("a key is no text: {key:?}"))?;
                object.insert(key.to_owned(), long_form(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let value = long_form(&tagged.value)?;
            match (tag.trim_start_matches('!'), value) {
                (tag @ ("Ref" | "Condition"), value) => json!({tag: value}),
                ("GetAtt", Value::String(path)) => {
                    let (id, attribute) = path.split_once('.').ok_or(format!("!GetAtt {path}"))?;
                    json!({"Fn::GetAtt": [id, attribute]})
                }
                (tag, value) => json!({format!("Fn::{tag}"): value}),
            }
        }
    })
}
