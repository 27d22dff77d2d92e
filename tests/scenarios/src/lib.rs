//! What the contract tests look at: the state machines, the template, the samples, and the documentation of errors.
//!
//! Reads files of the repository, nothing else: no AWS, no local cloud. The tests themselves are under `tests/`.

pub mod errors_doc;
pub mod files;
pub mod machine;
pub mod template;

pub use machine::{Machine, State};
pub use template::Template;
