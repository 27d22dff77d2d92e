//! A fingerprint of the schema: SHA-256 per class over what `information_schema` says, without what changes by itself
//! (auto-increment values, numbers of rows, sizes, times).

use std::collections::BTreeMap;

use dr_core::Result;
use dr_core::proof::frame::SchemaFingerprint;
use sha2::{Digest as _, Sha256};

use super::NOT_USERS;
use crate::session::Session;

/// Classes with their queries: the database first, then what the class is made of. `{not}` is the databases that are
/// left out.
const CLASSES: &[(&str, &[&str])] = &[
    (
        "tables",
        &[
            "SELECT table_schema, table_name, table_type, engine, row_format, table_collation, create_options, \
             table_comment FROM information_schema.tables WHERE table_type <> 'VIEW' AND table_schema NOT IN {not}",
            "SELECT table_schema, table_name, partition_name, subpartition_name, partition_ordinal_position, \
             partition_method, partition_expression, subpartition_expression, partition_description \
             FROM information_schema.partitions WHERE partition_name IS NOT NULL AND table_schema NOT IN {not}",
            "SELECT schema_name, default_character_set_name, default_collation_name \
             FROM information_schema.schemata WHERE schema_name NOT IN {not}",
        ],
    ),
    (
        "columns",
        &[
            "SELECT c.table_schema, c.table_name, c.column_name, c.ordinal_position, c.column_default, c.is_nullable, \
           c.column_type, c.character_set_name, c.collation_name, c.extra, c.column_comment, c.generation_expression \
           FROM information_schema.columns c JOIN information_schema.tables t \
             ON t.table_schema = c.table_schema AND t.table_name = c.table_name \
           WHERE t.table_type <> 'VIEW' AND c.table_schema NOT IN {not}",
        ],
    ),
    (
        "indexes",
        &[
            "SELECT table_schema, table_name, index_name, non_unique, seq_in_index, column_name, collation, sub_part, \
           index_type, comment FROM information_schema.statistics WHERE table_schema NOT IN {not}",
        ],
    ),
    (
        "constraints",
        &[
            "SELECT constraint_schema, table_name, constraint_name, constraint_type \
             FROM information_schema.table_constraints WHERE constraint_schema NOT IN {not}",
            "SELECT constraint_schema, table_name, constraint_name, column_name, ordinal_position, \
             referenced_table_schema, referenced_table_name, referenced_column_name \
             FROM information_schema.key_column_usage WHERE constraint_schema NOT IN {not}",
            "SELECT constraint_schema, table_name, constraint_name, unique_constraint_name, match_option, update_rule, \
             delete_rule FROM information_schema.referential_constraints WHERE constraint_schema NOT IN {not}",
            "SELECT constraint_schema, constraint_name, check_clause FROM information_schema.check_constraints \
             WHERE constraint_schema NOT IN {not}",
        ],
    ),
    (
        "views",
        &["SELECT table_schema, table_name, view_definition, check_option, definer, security_type \
           FROM information_schema.views WHERE table_schema NOT IN {not}"],
    ),
    (
        "routines",
        &[
            "SELECT routine_schema, routine_type, routine_name, dtd_identifier, routine_definition, is_deterministic, \
             sql_data_access, security_type, definer, sql_mode FROM information_schema.routines \
             WHERE routine_schema NOT IN {not}",
            "SELECT specific_schema, specific_name, ordinal_position, parameter_mode, parameter_name, dtd_identifier \
             FROM information_schema.parameters WHERE specific_schema NOT IN {not}",
        ],
    ),
    (
        "triggers",
        &[
            "SELECT trigger_schema, trigger_name, event_manipulation, event_object_table, action_timing, action_order, \
           action_statement, definer, sql_mode FROM information_schema.triggers WHERE trigger_schema NOT IN {not}",
        ],
    ),
    (
        "events",
        &[
            "SELECT event_schema, event_name, event_definition, event_type, execute_at, interval_value, interval_field, \
           starts, ends, on_completion, definer, sql_mode FROM information_schema.events \
           WHERE event_schema NOT IN {not}",
        ],
    ),
];

/// The fingerprints of all users' databases.
///
/// # Errors
/// Of the connection or the queries.
pub async fn fingerprints(
    session: &Session,
    databases: &[String],
) -> Result<BTreeMap<String, SchemaFingerprint>> {
    let mut all: BTreeMap<String, SchemaFingerprint> =
        databases.iter().map(|database| (database.clone(), SchemaFingerprint::new())).collect();
    for (class, queries) in CLASSES {
        // Every row as one text, its parts told apart by their lengths.
        let mut texts: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (number, query) in (0u8..).zip(*queries) {
            let sql = query.replace("{not}", NOT_USERS);
            for row in session.rows("reading the schema", &sql).await? {
                let mut text = vec![number];
                for part in row.0.iter().skip(1) {
                    match part {
                        None => text.push(0),
                        Some(part) => {
                            text.push(1);
                            text.extend((part.len() as u64).to_be_bytes());
                            text.extend(part.as_bytes());
                        }
                    }
                }
                texts.entry(row.text(0)?.to_owned()).or_default().push(text);
            }
        }
        for (database, classes) in &mut all {
            let mut rows = texts.remove(database).unwrap_or_default();
            rows.sort();
            let mut hash = Sha256::new();
            for row in rows {
                hash.update((row.len() as u64).to_be_bytes());
                hash.update(&row);
            }
            classes.insert((*class).to_owned(), dr_core::ids::hex(&hash.finalize()));
        }
    }
    Ok(all)
}
