//! `docs/errors.md`, made from the enum of error names.

use std::fmt::Write as _;

use dr_core::ErrorName;

/// Where it is, from the repository's root.
pub const PATH: &str = "docs/errors.md";

/// The document's text.
pub fn text() -> String {
    let mut out = String::from(
        "# Errors\n\
         \n\
         Every operation that does not succeed ends in one of these, in its record, its alert and its execution. The\n\
         message says what was being done, to what and where; this page says what the name means.\n\
         \n\
         **Class**: `retry`: the state machines tried again and it did not help; `terminal`: the same call would fail\n\
         again; `operator`: it fails until a person changes something. **Code** is what metrics (`error_code`) and the\n\
         record use.\n\
         \n\
         Generated from `shared/core/src/error.rs` by `make errors-doc`.\n\
         \n\
         | Name | Code | Class | What happened | What to do |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for name in ErrorName::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| `{name}` | `{}` | {} | {} | {} |",
            name.code(),
            name.class(),
            cell(name.cause()),
            cell(name.remedy())
        );
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
