//! Reading inputs: strict, with the path of the fault in the message.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{DrError, ErrorName, Result};

/// Reads `value` as a `T`. `what` names the input in the message.
///
/// # Errors
/// [`ErrorName::InvalidInput`] with the JSON path of the first fault and what was expected there. The offending
/// value itself is not repeated where it is a string of the caller's: it could be a secret in the wrong field.
pub fn parse<T: DeserializeOwned>(what: &str, value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|fault| {
        let path = fault.path().to_string();
        let at = if path == "." { "at the top".to_owned() } else { format!("at `{path}`") };
        DrError::new(
            ErrorName::InvalidInput,
            format!("reading {what}: {at}: {}", redact(&fault.inner().to_string())),
        )
    })
}

/// Takes quoted strings out of serde's `invalid type: string "…"` and `invalid value: string "…"`.
fn redact(message: &str) -> String {
    let Some(start) = message.find("string \"") else { return message.to_owned() };
    let rest = &message[start + 8..];
    match rest.rfind("\", expected") {
        Some(end) => format!("{}string{}", &message[..start], &rest[end + 1..]),
        None => message.to_owned(),
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
        ];
        for (input, expected) in cases {
            let error = parse::<Request>("a request", input.clone()).unwrap_err();
            assert_eq!(error.name(), ErrorName::InvalidInput, "{input}");
            assert!(error.to_string().contains(expected), "{input}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
