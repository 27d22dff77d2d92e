//! What became of a database's rows during an experiment: digested before the faults, and again after everything is put
//! back.

use serde::{Deserialize, Serialize};

use super::experiment::Limits;
use crate::error::{DrError, ErrorName, Result};
use crate::ids::{DatabaseId, Region};
use crate::observed::DatabaseKind;
use crate::proof::judge::live::{Comparison, Unlike};
use crate::proof::judgement::Reason;
use crate::request::{Credentials, ValidationOptions};

/// Tables that a sentence names; the report has all.
const MOST_NAMED: usize = 5;

/// Asks for the rows of a database before and after. It is read whole, twice, and one row is written to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataCheck {
    /// The database, of PostgreSQL and in the installation's own Region. It need not be among the targets.
    pub database: DatabaseId,
    /// Whether that is an instance or a cluster; looked for as both when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_kind: Option<DatabaseKind>,
    /// Credentials; by default the instance's managed secret or its tag `lifeboat:secret-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Upper limit for reading, in MiB a second over all connections; none by default. 1 to 100,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_read_mebibytes_per_second: Option<u32>,
    /// Connections that read in parallel. 1 to 8.
    #[serde(default = "two")]
    pub connections: u8,
    /// Whether the experiment may still be completed where nothing tells whether rows are lost or were deleted: the
    /// counters that would tell end with a restart. False for databases in which nothing is deleted meanwhile.
    #[serde(default = "yes")]
    pub tolerate_untold: bool,
}

const fn two() -> u8 {
    2
}

const fn yes() -> bool {
    true
}

/// What is known of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// It was made.
    Compared(Box<Comparison>),
    /// It could not be made, and why.
    Failed(String),
    /// Nothing: it was not made, or not yet.
    Nothing,
}

/// What became of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every row that was there is there, or left by changes that are accounted for.
    Intact,
    /// Of some tables nothing tells whether what is gone was deleted or lost.
    Untold,
    /// Rows are lost, or are not what they were.
    Lost,
    /// The rows were not compared.
    NotCompared,
}

/// See [`Verdict`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The database.
    pub database: DatabaseId,
    /// In one word.
    pub verdict: Verdict,
    /// In a sentence.
    pub detail: String,
    /// All of it; absent when the rows were not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Box<Comparison>>,
}

impl DataCheck {
    /// How the database is read.
    pub fn validation(&self) -> ValidationOptions {
        ValidationOptions {
            credentials: self.credentials.clone(),
            max_read_mebibytes_per_second: self.max_read_mebibytes_per_second,
            connections: self.connections,
            ..ValidationOptions::default()
        }
    }

    /// Checks the bounds. `region` is that of the experiment.
    ///
    /// # Errors
    /// [`ErrorName::InvalidInput`] with the field and the rule.
    pub fn check(&self, region: &Region, limits: &Limits) -> Result<()> {
        self.validation().check_in("dataCheck")?;
        if *region == limits.home {
            return Ok(());
        }
        Err(DrError::new(
            ErrorName::InvalidInput,
            format!(
                "reading the experiment: `dataCheck` reads a database in {}, not in {region}",
                limits.home
            ),
        ))
    }

    /// What is known, judged.
    pub fn judge(&self, known: Known) -> Found {
        let (verdict, detail, comparison) = match known {
            Known::Compared(comparison) => {
                let (verdict, detail) = verdict(&comparison);
                (verdict, detail, Some(comparison))
            }
            Known::Failed(why) => {
                (Verdict::NotCompared, format!("its rows could not be compared: {why}"), None)
            }
            Known::Nothing => (Verdict::NotCompared, "its rows have not been compared".to_owned(), None),
        };
        Found { database: self.database.clone(), verdict, detail, comparison }
    }

    /// Whether an experiment may be completed with that.
    pub const fn accepts(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Intact => true,
            Verdict::Untold => self.tolerate_untold,
            Verdict::Lost | Verdict::NotCompared => false,
        }
    }
}

fn verdict(comparison: &Comparison) -> (Verdict, String) {
    if !comparison.faults.is_empty() || !comparison.different.is_empty() {
        let lost = (!comparison.different.is_empty()).then(|| {
            format!("rows are lost or are not what they were: {}", named(comparison.different.iter()))
        });
        let all: Vec<String> = comparison.faults.iter().cloned().chain(lost).collect();
        return (Verdict::Lost, all.join("; "));
    }
    // What is not logged is emptied by a crash: that is what its owner chose.
    let (unlogged, untold): (Vec<&Unlike>, Vec<&Unlike>) =
        comparison.untold.iter().partition(|unlike| unlike.why == Reason::Unlogged);
    let apart = match unlogged.len() {
        0 => String::new(),
        some => format!("; {some} table(s) are not logged and do not count"),
    };
    let told = format!(
        "{} table(s) hold every row that they had, {} were changed since; {} rows are byte for byte what they \
         were{apart}",
        comparison.same, comparison.changed, comparison.proven_rows
    );
    if untold.is_empty() {
        return (Verdict::Intact, told);
    }
    let open = named(untold.into_iter());
    (Verdict::Untold, format!("{told}; nothing tells whether rows were deleted or lost: {open}"))
}

fn named<'a>(tables: impl ExactSizeIterator<Item = &'a Unlike>) -> String {
    let more = tables.len().saturating_sub(MOST_NAMED);
    let one = |unlike: &Unlike| {
        let gone = unlike.framed_rows.saturating_sub(unlike.rows);
        format!("{} ({gone} of {} rows are gone)", unlike.table, unlike.framed_rows)
    };
    let mut words: Vec<String> = tables.take(MOST_NAMED).map(one).collect();
    if more > 0 {
        words.push(format!("and {more} more, see the report"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn check(more: &serde_json::Value) -> DataCheck {
        let mut value = json!({"database": "orders"});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    fn unlike(table: &str, why: Reason) -> Unlike {
        Unlike { table: table.to_owned(), why, framed_rows: 100, rows: 98, slices: Vec::new() }
    }

    fn comparison() -> Comparison {
        Comparison {
            same: 3,
            changed: 1,
            untold: Vec::new(),
            different: Vec::new(),
            faults: Vec::new(),
            counted: true,
            proven_rows: 4_000,
            covered: 99.5,
            compared_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn judged(comparison: Comparison) -> Found {
        check(&json!({})).judge(Known::Compared(Box::new(comparison)))
    }

    #[test]
    fn a_bound_is_named_as_its_user_wrote_it() {
        let limits = Limits {
            home: Region::parse("us-east-1").unwrap(),
            regions: std::collections::BTreeSet::new(),
            longest: jiff::SignedDuration::from_hours(1),
            listed: std::collections::BTreeSet::new(),
            channels: std::collections::BTreeSet::new(),
            probe_hosts: Vec::new(),
            freeze: Vec::new(),
            approvals: 1,
            dry_run: true,
            settling_seconds: 30,
            region_fault: false,
            own_functions: None,
        };
        for (more, field) in [
            (json!({"connections": 9}), "`dataCheck.connections`"),
            (json!({"maxReadMebibytesPerSecond": 0}), "`dataCheck.maxReadMebibytesPerSecond`"),
        ] {
            let error = check(&more).check(&limits.home, &limits).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
        let abroad = Region::parse("eu-west-1").unwrap();
        let error = check(&json!({})).check(&abroad, &limits).unwrap_err();
        assert!(error.to_string().contains("in us-east-1, not in eu-west-1"), "{error}");
    }

    #[test]
    fn what_was_found_is_told_in_one_word_and_in_a_sentence() {
        let intact = judged(comparison());
        assert_eq!(intact.verdict, Verdict::Intact);
        assert!(intact.detail.contains("3 table(s) hold") && intact.detail.contains("4000 rows"));

        let unlogged = Comparison { untold: vec![unlike("shop.cache", Reason::Unlogged)], ..comparison() };
        let unlogged = judged(unlogged);
        assert_eq!(unlogged.verdict, Verdict::Intact);
        assert!(unlogged.detail.contains("1 table(s) are not logged"));

        let open = vec![unlike("shop.purchase", Reason::CountersUnusable)];
        let untold = judged(Comparison { untold: open.clone(), ..comparison() });
        assert_eq!(untold.verdict, Verdict::Untold);
        assert!(untold.detail.contains("shop.purchase (2 of 100 rows are gone)"), "{}", untold.detail);

        let many = (0..7).map(|n| unlike(&format!("shop.t{n}"), Reason::RowsMissing)).collect();
        let lost = judged(Comparison { untold: open, different: many, ..comparison() });
        assert_eq!(lost.verdict, Verdict::Lost);
        assert!(lost.detail.contains("shop.t4") && lost.detail.contains("and 2 more"), "{}", lost.detail);
        assert!(!lost.detail.contains("shop.t5"));

        let faulty = Comparison { faults: vec!["another server answers".to_owned()], ..comparison() };
        assert_eq!(judged(faulty).verdict, Verdict::Lost);
        for known in [Known::Nothing, Known::Failed("Dr.QueryFailed: it timed out".to_owned())] {
            assert_eq!(check(&json!({})).judge(known).verdict, Verdict::NotCompared);
        }
    }

    #[test]
    fn an_experiment_is_completed_with_what_its_user_tolerates() {
        let (patient, strict) = (check(&json!({})), check(&json!({"tolerateUntold": false})));
        for (verdict, by_patient, by_strict) in [
            (Verdict::Intact, true, true),
            (Verdict::Untold, true, false),
            (Verdict::Lost, false, false),
            (Verdict::NotCompared, false, false),
        ] {
            assert_eq!((patient.accepts(verdict), strict.accepts(verdict)), (by_patient, by_strict));
        }
    }
}
