//! Proving a backup: what is recorded of a source (a *frame*), what is found on a restore (an *examination*),
//! and what follows (a *judgement*). See `docs/adr/0003-how-a-proof-works.md`.
//!
//! The types are stored as JSON in the metadata bucket, so every one carries what a reader months later needs.
//! Nothing in here asks a database: `dr-postgres` and `dr-mysql` do.

pub mod cut;
pub mod digest;
pub mod examination;
pub mod frame;
pub mod judge;
pub mod judgement;
pub mod keyed;
pub mod visibility;

pub use digest::Digest;
