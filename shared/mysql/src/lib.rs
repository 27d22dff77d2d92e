//! Everything SQL of a proof, for MySQL 8.0 and 8.4 and MariaDB 10.6 to 11.8: connecting, framing a source, examining
//! a restore. The sibling of `dr-postgres`, with the same steps.
//!
//! | step | function |
//! | --- | --- |
//! | plan a frame | [`frame::plan`] |
//! | read units, of a frame, of the source again, of a restore | [`units::read_units`] |
//! | the last thing before the snapshot | [`heartbeat::beat`] |
//! | look again after the snapshot | [`frame::observe`] |
//! | plan an examination | [`examine::plan`] |
//! | check its structure | [`checks::run_checks`] |
//! | read its catalogue | [`catalogue::findings::catalogue`] |
//!
//! It knows nothing of AWS, stores nothing, and judges nothing. It was tried on MariaDB 10.11; what MySQL does
//! otherwise is written from its documentation.

pub mod catalogue;
pub mod checks;
pub mod digest;
pub mod error;
pub mod examine;
pub mod frame;
pub mod heartbeat;
pub mod session;
mod text;
pub mod units;

pub use session::Session;
pub use units::read_units;
