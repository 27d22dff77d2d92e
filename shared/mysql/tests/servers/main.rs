//! Proofs of real MariaDB servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod clean;
mod content;
mod damage;
mod lab;
mod trouble;
