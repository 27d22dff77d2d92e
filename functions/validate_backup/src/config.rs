//! What the function reads from its environment.

use dr_core::Result;
use dr_core::config::{self, Vars};

/// The function's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where frames and reports live.
    pub metadata_bucket: String,
    /// A PEM file with the authorities that sign database certificates; by default Amazon's bundle.
    pub ca_file: Option<String>,
}

impl Config {
    /// Reads the variables.
    ///
    /// # Errors
    /// `InvalidConfiguration` naming every fault.
    pub fn read(mut vars: Vars<'_>) -> Result<Self> {
        let metadata_bucket = vars.required("DR_METADATA_BUCKET", config::text);
        let ca_file = vars.optional("DR_DB_CA_FILE", config::text);
        vars.build(|| Some(Self { metadata_bucket: metadata_bucket?, ca_file }))
    }
}
