//! Chaos experiments: what may be broken, for how long, and how it is put back.
//!
//! An experiment is resolved into a plan of single changes, each with what the world was before and what undoes it. Its
//! journal is written before each change, so whoever finds the journal can end the experiment: the runner, another
//! runner, the watchdog of another Region, a person. Nothing here calls AWS or reads a clock.

pub mod approval;
pub mod blocks;
pub mod data;
pub mod experiment;
pub mod fault;
pub mod freeze;
pub mod journal;
#[cfg(test)]
mod model_tests;
pub mod plan;
pub mod probe;
pub mod put_back;
pub mod records;
pub mod report;
pub mod selection;
pub mod world;
