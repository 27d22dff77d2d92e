//! What wakes the function: a request of a person or a state machine, a schedule, or an event of RDS.

use dr_core::health::Scope;
use dr_core::ids::{DatabaseId, Region};
use dr_core::{DrError, ErrorName, Result, input};
use serde::Deserialize;
use serde_json::Value;

/// The payload, when it is no event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Request {
    /// Look at everything, or at what is named.
    Check(Check),
}

/// What to look at, and whether people are told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// Only these databases, 1 to 100, and nothing that belongs to none; this or `region`.
    #[serde(default)]
    pub databases: Option<Vec<DatabaseId>>,
    /// Only this Region; this or `databases`.
    #[serde(default)]
    pub region: Option<Region>,
    /// Whether changes of state are remembered and told. False looks and answers, and changes nothing but that it
    /// leaves a report.
    #[serde(default = "yes")]
    pub alert: bool,
}

fn yes() -> bool {
    true
}

/// An event of EventBridge, as far as it says what to look at. `aws_lambda_events` has the whole of it, and is not
/// used: its features would have every function's dependencies compiled a second time.
/// Source: EventBridge User Guide, "Structure of Amazon EventBridge events".
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Event {
    source: String,
    #[serde(default)]
    detail: Detail,
}

/// The detail of an event of RDS, as far as it says what to look at. A scheduled event has an empty one.
/// Source: Amazon RDS User Guide, "Overview of events for Amazon RDS".
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Detail {
    #[serde(default)]
    source_type: Option<String>,
    #[serde(default)]
    source_identifier: Option<String>,
}

const MOST_DATABASES: usize = 100;

impl Check {
    /// Everything, and people are told.
    const ALL: Self = Self { databases: None, region: None, alert: true };

    /// Reads a payload: `{"check": {…}}`, or an event of EventBridge (a schedule, or RDS).
    ///
    /// # Errors
    /// [`ErrorName::InvalidInput`] with the JSON path of the fault.
    pub fn read(payload: Value) -> Result<Self> {
        if payload.get("detail-type").is_some() {
            return Self::of_event(&input::parse("the event to health_check", payload)?);
        }
        let Request::Check(check) = input::parse("the request to health_check", payload)?;
        let fault = |text: &str| {
            let text = format!("reading the request to health_check: {text}");
            Err(DrError::new(ErrorName::InvalidInput, text))
        };
        match &check.databases {
            Some(_) if check.region.is_some() => {
                fault("`check.databases` and `check.region` exclude each other")
            }
            Some(databases) if !(1..=MOST_DATABASES).contains(&databases.len()) => {
                fault("`check.databases` names 1 to 100 databases")
            }
            _ => Ok(check),
        }
    }

    fn of_event(event: &Event) -> Result<Self> {
        match event.source.as_str() {
            "aws.events" | "aws.scheduler" => Ok(Self::ALL),
            // The database that the event is about is looked at; events of other things wake a look at everything.
            "aws.rds" => {
                let named = event.detail.source_identifier.as_ref().filter(|_| {
                    event
                        .detail
                        .source_type
                        .as_deref()
                        .is_some_and(|kind| kind.eq_ignore_ascii_case("DB_INSTANCE"))
                });
                let databases = named.and_then(|id| DatabaseId::parse(id.to_lowercase()).ok());
                Ok(Self { databases: databases.map(|id| vec![id]), ..Self::ALL })
            }
            _ => Err(DrError::new(
                ErrorName::InvalidInput,
                "reading the event to health_check: at `source`: only schedules and RDS wake it",
            )),
        }
    }

    /// What is looked at.
    pub fn scope(&self) -> Scope {
        match (&self.databases, &self.region) {
            (Some(databases), _) => Scope::Databases(databases.iter().map(ToString::to_string).collect()),
            (None, Some(region)) => Scope::Region(region.clone()),
            (None, None) => Scope::All,
        }
    }
}
