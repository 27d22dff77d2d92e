//! Everything SQL of a proof, for PostgreSQL 14 to 18: connecting, framing a source, examining a restore.
//!
//! One public function a step; each call is bounded, and whoever calls stores what it answers and watches the clock.
//!
//! | step | function |
//! | --- | --- |
//! | plan a frame | [`frame::plan`] |
//! | read units of a frame | [`frame::horizon`], then [`units::read_units`] |
//! | the last thing before the snapshot | [`heartbeat::beat`] |
//! | look again after the snapshot | [`frame::observe`] |
//! | plan an examination | [`examine::plan`] |
//! | read its units | [`examine::unit_work`], then [`units::read_units`] |
//! | check its structure | [`checks::run_checks`] |
//! | read its catalogue | [`catalogue::findings::catalogue`] |
//! | follow a difference down to rows | [`narrow::narrow`] |
//! | read a framed source again | [`examine::again`], then as for a restore |
//!
//! It knows nothing of AWS, stores nothing, and judges nothing: what follows from what was found is `dr-core`'s.

pub mod catalogue;
pub mod checks;
pub mod digest;
pub mod error;
pub mod examine;
pub mod frame;
pub mod heartbeat;
pub mod narrow;
pub mod session;
mod text;
pub mod units;

pub use dr_database::settings;
pub use dr_database::{Access, ConnectionSettings, Limits, Pace, Password, Progress, Security};
pub use frame::Source;
pub use session::Session;
pub use units::{UnitWork, read_units};
