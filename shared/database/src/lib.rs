//! What connecting to any database and working through a queue over some connections needs: settings, whom to trust,
//! a pool with a deadline, a pace. Knows no engine: `dr-postgres` and `dr-mysql` bring the connections.

pub mod pace;
pub mod pool;
pub mod settings;

pub use pace::Pace;
pub use pool::{Limits, Progress};
pub use settings::{Access, ConnectionSettings, Password, Security};

/// What an examination is to include.
#[derive(Debug, Clone, Copy)]
pub struct Wishes {
    /// Prove foreign keys again.
    pub foreign_keys: bool,
    /// Prove unique constraints and indexes again.
    pub unique_constraints: bool,
    /// About how large a unit is, usually [`dr_core::proof::cut::UNIT_BYTES`].
    pub unit_bytes: u64,
}
