//! Tables that are cut by keys and not by blocks: those of MySQL and MariaDB, which do not show a reader which
//! transaction wrote a row. What is recorded of them, and what of it can be told without comparing rows.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::frame::{FramePlan, TableName, Unit};

/// What is known of a keyed table beside its [`super::frame::TableFacts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyedFacts {
    /// The storage engine, such as `InnoDB`.
    pub engine: String,
    /// Whether a storage snapshot holds one moment of it (InnoDB): others may be cut in the middle of a statement.
    pub transactional: bool,
    /// Whether old versions of rows belong to it (`WITH SYSTEM VERSIONING`).
    #[serde(default)]
    pub versioned: bool,
    /// The columns that a digest speaks of, in order. Columns that are not stored are left out.
    pub columns: Vec<KeyedColumn>,
    /// The columns of the key that it is cut by; empty where it has to be read in one pass.
    pub key: Vec<KeyedColumn>,
    /// Where its slices begin, but for the first, which has no lower bound: one SQL literal a key column.
    pub bounds: Vec<Vec<String>>,
}

/// A column as far as a digest depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyedColumn {
    /// Its name.
    pub name: String,
    /// `DATA_TYPE` of `information_schema.COLUMNS`, such as `varchar`.
    pub data_type: String,
    /// Its character set and collation, where it has them.
    #[serde(default)]
    pub text: Option<(String, String)>,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether one value may be longer than 64 KiB.
    #[serde(default)]
    pub long: bool,
}

/// Rows written by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

impl Written {
    /// What was written since; `None` when a counter went back.
    pub fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            inserted: self.inserted.checked_sub(before.inserted)?,
            updated: self.updated.checked_sub(before.updated)?,
            deleted: self.deleted.checked_sub(before.deleted)?,
        })
    }

    /// Whether nothing was.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// One table at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableState {
    /// The table.
    pub name: TableName,
    /// SHA-256 over its columns.
    pub structure: String,
    /// `CREATE_TIME`, as text: most of what makes a table anew changes it.
    pub created: Option<String>,
    /// `UPDATE_TIME`, as text in UTC: when a transaction that wrote to it was committed last. The server keeps it in
    /// memory and may forget it.
    pub updated: Option<String>,
    /// Its own counters of rows (`performance_schema`), where the server keeps them. `None` also for a table that
    /// foreign keys may write to by themselves, which is not counted.
    pub written: Option<Written>,
}

/// A server at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceState {
    /// When it was looked at, by the server's clock.
    pub taken_at: Timestamp,
    /// When the server was started, in seconds since 1970: counters start anew with it.
    pub started: u64,
    /// Rows written in all tables (`Innodb_rows_*`, else `Handler_*`).
    pub written: Option<Written>,
    /// Statements that define things, by kind (`Com_create_table` and the like).
    pub statements: BTreeMap<String, u64>,
    /// All tables.
    pub tables: Vec<TableState>,
}

impl SourceState {
    /// A table of it.
    pub fn table(&self, name: &TableName) -> Option<&TableState> {
        self.tables.iter().find(|table| table.name == *name)
    }

    /// Whether statements of any of these kinds were run since. A server that was started anew may have run any.
    pub fn ran_since(&self, before: &Self, kinds: &[&str]) -> bool {
        self.started != before.started
            || kinds.iter().any(|kind| {
                let count = |state: &Self| state.statements.get(*kind).copied().unwrap_or(0);
                count(self) > count(before)
            })
    }

    /// What was written to a table between two looks, by its own counters.
    pub fn written_to(&self, before: &Self, name: &TableName) -> Option<Written> {
        if self.started != before.started {
            return None;
        }
        self.table(name)?.written?.since(before.table(name)?.written?)
    }

    /// What was written in the whole server between two looks.
    pub fn written_since(&self, before: &Self) -> Option<Written> {
        if self.started == before.started { self.written?.since(before.written?) } else { None }
    }
}

/// How far `UPDATE_TIME`, which has whole seconds, may be from the clock.
const GRAIN: SignedDuration = SignedDuration::from_secs(2);

/// Whether a table was certainly not written to between two looks: its own counters stand still, or it was last
/// written to at a moment that both looks name and that lies before the first.
pub fn is_quiet(before: &SourceState, after: &SourceState, name: &TableName) -> bool {
    let (Some(then), Some(now)) = (before.table(name), after.table(name)) else { return false };
    if then.created != now.created || then.structure != now.structure {
        return false;
    }
    if after.written_to(before, name).is_some_and(Written::is_nothing) && !after.ran_since(before, REWRITING)
    {
        return true;
    }
    let long_ago = then.updated.as_deref().and_then(moment).is_some_and(|at| at + GRAIN < before.taken_at);
    before.started == after.started && then.updated == now.updated && long_ago
}

/// Statements that change a table's rows without counting them.
pub const REWRITING: &[&str] = &["Com_truncate", "Com_alter_table", "Com_drop_table", "Com_rename_table"];

fn moment(text: &str) -> Option<Timestamp> {
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// The units of a frame that have to be read again after the snapshot: those with a table that may have been written
/// to.
pub fn units_to_repeat<'p>(plan: &'p FramePlan, after: &SourceState) -> Vec<&'p Unit> {
    let Some(before) = &plan.state else { return Vec::new() };
    let quiet: Vec<bool> = plan.tables.iter().map(|table| is_quiet(before, after, &table.name)).collect();
    plan.units
        .iter()
        .filter(|unit| unit.slices.iter().any(|slice| !quiet.get(slice.table).copied().unwrap_or(false)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn name() -> TableName {
        TableName { database: "shop".into(), schema: String::new(), table: "t".into() }
    }

    fn state(change: impl FnOnce(&mut SourceState)) -> SourceState {
        let table = TableState {
            name: name(),
            structure: "s".into(),
            created: Some("2027-01-01 00:00:00".into()),
            updated: Some("2027-01-15 07:59:00".into()),
            written: Some(Written { inserted: 5, updated: 5, deleted: 5 }),
        };
        let mut state = SourceState {
            taken_at: "2027-01-15T08:00:00Z".parse().unwrap(),
            started: 7,
            written: Some(Written::default()),
            statements: BTreeMap::from([("Com_truncate".into(), 1)]),
            tables: vec![table],
        };
        change(&mut state);
        state
    }

    #[test]
    fn a_table_is_quiet_only_where_counters_or_times_prove_it() {
        type Change = fn(&mut SourceState);
        let nothing: Change = |_| {};
        let forgotten: Change = |state| state.tables[0].updated = None;
        let uncounted: Change = |state| state.tables[0].written = None;
        let cases: [(&str, Change, Change, bool); 12] = [
            ("both stand still", nothing, nothing, true),
            ("only counters are kept", forgotten, forgotten, true),
            ("only times are kept", uncounted, uncounted, true),
            (
                "neither is kept",
                |s| (s.tables[0].written, s.tables[0].updated) = (None, None),
                |s| (s.tables[0].written, s.tables[0].updated) = (None, None),
                false,
            ),
            (
                "written to, without counters",
                uncounted,
                |s| {
                    s.tables[0].written = None;
                    s.tables[0].updated = Some("2027-01-15 08:00:05".into());
                },
                false,
            ),
            (
                "written to in the second of the look",
                |s| {
                    s.tables[0].written = None;
                    s.tables[0].updated = Some("2027-01-15 07:59:59".into());
                },
                |s| {
                    s.tables[0].written = None;
                    s.tables[0].updated = Some("2027-01-15 07:59:59".into());
                },
                false,
            ),
            (
                "counted a row",
                forgotten,
                |s| {
                    s.tables[0].updated = None;
                    s.tables[0].written = Some(Written { inserted: 6, updated: 5, deleted: 5 });
                },
                false,
            ),
            (
                "truncated, which is not counted",
                forgotten,
                |s| {
                    s.tables[0].updated = None;
                    s.statements.insert("Com_truncate".into(), 2);
                },
                false,
            ),
            ("the server was started anew", nothing, |s| s.started = 8, false),
            ("made anew", nothing, |s| s.tables[0].created = None, false),
            ("altered", nothing, |s| s.tables[0].structure = "s2".into(), false),
            ("gone", nothing, |s| s.tables.clear(), false),
        ];
        for (what, before, after, expected) in cases {
            assert_eq!(is_quiet(&state(before), &state(after), &name()), expected, "{what}");
        }
    }
}
