//! Reading inputs: strict, with the path of the fault in the message.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{DrError, ErrorName, Result};

/// The longest message, in characters: names of fields and paths can be as long as the input.
const LONGEST_MESSAGE: usize = 800;

/// Reads `json` as a `T`. `what` names the input in the message.
///
/// # Errors
/// [`ErrorName::InvalidInput`]: as [`parse`], and at the top for what is no JSON, or JSON that cannot be held (nested
/// more than 127 deep, a number beyond 64-bit floating point, half a surrogate pair), with line and column.
pub fn parse_text<T: DeserializeOwned>(what: &str, json: &str) -> Result<T> {
    let value = serde_json::from_str(json).map_err(|fault| {
        // Faults of syntax quote nothing of the text.
        DrError::new(ErrorName::InvalidInput, format!("reading {what}: at the top: {fault}"))
    })?;
    parse(what, value)
}

/// Reads `value` as a `T`. `what` names the input in the message.
///
/// # Errors
/// [`ErrorName::InvalidInput`] with the JSON path of the first fault and what was expected there. The offending
/// value itself is not repeated where it is a string of the caller's: it could be a secret in the wrong field. Names
/// of fields are.
#[expect(clippy::needless_pass_by_value, reason = "an input is used up by reading it")]
pub fn parse<T: DeserializeOwned>(what: &str, value: Value) -> Result<T> {
    serde_path_to_error::deserialize(&value).map_err(|fault| {
        let path = fault.path().to_string();
        let at = if path == "." { "at the top".to_owned() } else { format!("at `{path}`") };
        let message = format!("reading {what}: {at}: {}", redact(&fault.inner().to_string(), &value));
        DrError::new(ErrorName::InvalidInput, message.chars().take(LONGEST_MESSAGE).collect::<String>())
    })
}

/// What a person has to say: who asks, and why. 1 to 1000 characters, not all of them blanks.
///
/// # Errors
/// [`ErrorName::InvalidInput`] naming `field`.
pub fn check_words(what: &str, field: &str, text: &str) -> Result<()> {
    if !text.trim().is_empty() && text.chars().count() <= 1_000 {
        return Ok(());
    }
    let what = format!("{what}: `{field}` needs 1 to 1000 characters");
    Err(DrError::new(ErrorName::InvalidInput, what))
}

/// Takes the caller's strings out of a message.
///
/// Quotation marks are around values only: in serde's `invalid type: string "…", expected …`, and in what the parsers
/// of other crates say, which quote parts. serde's "unknown variant `…`, expected …" is about a string, which goes, or
/// about a member's name, which stays.
fn redact(message: &str, value: &Value) -> String {
    let variant = message.strip_prefix("unknown variant `").and_then(|rest| {
        let end = rest.rfind("`, expected").or_else(|| rest.rfind("`, there are no variants"))?;
        Some((&rest[..end], &rest[end + 1..]))
    });
    match (variant, message.find('"').zip(message.rfind('"'))) {
        (Some((name, rest)), _) if holds(value, name) => format!("unknown variant{rest}"),
        (None, Some((start, end))) => {
            format!("{}{}", message[..start].trim_end(), message.get(end + 1..).unwrap_or_default())
        }
        _ => message.to_owned(),
    }
}

/// Whether a string, keys excepted, is somewhere in a value.
fn holds(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Array(items) => items.iter().any(|item| holds(item, wanted)),
        Value::Object(members) => members.values().any(|member| holds(member, wanted)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its parsing is looked at")]
    struct Inner {
        count: u32,
        #[serde(default)]
        when: Option<jiff::Timestamp>,
        #[serde(default)]
        how: Option<How>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum How {
        Quick,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Request {
        #[serde(rename = "go")]
        Go(#[expect(dead_code, reason = "only its parsing is looked at")] Inner),
    }

    #[test]
    fn a_fault_is_named_with_its_path_and_without_the_value() {
        let cases = [
            (json!({"go": {"count": "hunter2"}}), "`go.count`"),
            (json!({"go": {"count": 1, "extra": 2}}), "extra"),
            (json!({"stop": {}}), "stop"),
            (json!([]), ""),
            (json!({"go": {}}), "count"),
            (json!("hunter2"), "at the top"),
            (json!({"hunter2 \", expected \"": 0, "go": "hunter2\", expected"}), "at the top"),
            (json!({"go": {"count": 1, "when": "2026-01-02hunter2"}}), "`go.when`"),
            (json!({"go": {"count": 1, "how": "hunter2`, expected `"}}), "`go.how`"),
        ];
        for (input, expected) in cases {
            let error = parse::<Request>("a request", input.clone()).unwrap_err();
            assert_eq!(error.name(), ErrorName::InvalidInput, "{input}");
            assert!(error.to_string().contains(expected), "{input}: {error}");
            let named = error.to_string().replace("`hunter2 \", expected \"`", "");
            assert!(!named.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn text_that_cannot_be_held_is_refused_at_the_top() {
        let deep = format!("{{\"go\": {}{}}}", "[".repeat(500), "]".repeat(500));
        for text in ["", "{", "hunter2", "{\"go\": 1e999}", "\"\\ud800\"", "{} hunter2", &deep] {
            let error = parse_text::<Request>("a request", text).unwrap_err();
            assert_eq!(error.name(), ErrorName::InvalidInput, "{text}");
            assert!(
                error.to_string().contains("at the top") && !error.to_string().contains("hunter2"),
                "{error}"
            );
        }
        assert!(parse_text::<Request>("a request", "{\"go\": {\"count\": 1}}").is_ok());
    }
}
