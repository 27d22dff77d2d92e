//! The generated documentation of errors is the one that is committed.
#![allow(clippy::unwrap_used, reason = "tests")]

use scenarios::{errors_doc, files};

#[test]
fn the_committed_document_is_current() {
    let committed = files::text(errors_doc::PATH).unwrap();
    assert!(committed == errors_doc::text(), "{} is not current: run `make errors-doc`", errors_doc::PATH);
}
