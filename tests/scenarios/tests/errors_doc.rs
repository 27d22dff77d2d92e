//! The generated documentation of errors is the one that is committed.
#![allow(clippy::unwrap_used, reason = "tests")]

use scenarios::{errors_doc, files};

#[test]
fn the_committed_document_is_current() {
    let committed = files::text(errors_doc::PATH).unwrap();
    assert!(committed == errors_doc::text(), "{} is not current: run `make errors-doc`", errors_doc::PATH);
}

#[test]
fn every_finding_of_health_is_in_its_runbook_and_nothing_else_is() {
    let runbook = files::text("docs/runbooks/a-health-finding.md").unwrap();
    let rows =
        runbook.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split_once(" |"));
    let told: Vec<&str> = rows.flat_map(|(codes, _)| codes.trim_end_matches('`').split("`, `")).collect();
    let mut sorted = told.clone();
    sorted.sort_unstable();
    let mut codes: Vec<&str> = dr_core::health::Code::ALL.iter().map(|code| code.as_str()).collect();
    codes.sort_unstable();
    assert_eq!(sorted, codes);
}
