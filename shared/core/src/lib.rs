//! The pure core of Lifeboat: types, error names and every decision.
//!
//! Nothing in here does I/O, reads a clock, an environment variable or a random source: time and observations
//! are arguments, and a decision is a value that the shell (`dr-aws`, `dr-postgres`, the functions) carries out.

pub mod changes;
pub mod chaos;
pub mod config;
pub mod control;
pub mod engine;
pub mod error;
pub mod failure;
#[cfg(test)]
mod fixtures;
pub mod fleet;
pub mod health;
pub mod ids;
pub mod input;
pub mod labels;
pub mod observed;
pub mod operation;
pub mod origin;
pub mod plan;
pub mod polling;
pub mod proof;
pub mod recovery;
pub mod replication;
pub mod request;
pub mod restore;
pub mod snapshot;
pub mod sought;

pub use engine::{Engine, EngineFamily};
pub use error::{DrError, ErrorClass, ErrorName, Leftovers, Result};
