//! What the function reads from its environment.

use dr_core::Result;
use dr_core::config::{self, Vars};
use dr_core::ids::Region;

/// The function's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where frames and reports live.
    pub metadata_bucket: String,
    /// The home Region's bucket, where this installation proves copies of another one's backups.
    pub home: Option<(Region, String)>,
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
        let home = config::home(&mut vars, "DR_HOME_REGION", "DR_HOME_METADATA_BUCKET");
        let ca_file = vars.optional("DR_DB_CA_FILE", config::text);
        vars.build(|| Some(Self { metadata_bucket: metadata_bucket?, home, ca_file }))
    }
}
