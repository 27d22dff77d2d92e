//! Writes `docs/errors.md`.

use std::process::ExitCode;

use scenarios::{errors_doc, files};

fn main() -> ExitCode {
    match std::fs::write(files::root().join(errors_doc::PATH), errors_doc::text()) {
        Ok(()) => ExitCode::SUCCESS,
        #[expect(clippy::print_stderr, reason = "a command for people")]
        Err(error) => {
            eprintln!("writing {}: {error}", errors_doc::PATH);
            ExitCode::FAILURE
        }
    }
}
