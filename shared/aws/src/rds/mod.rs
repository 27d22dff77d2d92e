//! Amazon RDS in one Region: each method is one call (or one paginated listing) and says what came back.
//!
//! Errors which an answer hangs on ("already exists", "not now", "no room") are values; the rest are errors of
//! ours. Nothing waits and nothing is tried again here, beyond what the SDK does by itself.

mod clusters;
mod experiments;
mod facts;
mod instances;
mod snapshots;
mod survey;

use std::collections::BTreeMap;

use dr_core::Result;
use dr_core::ids::Region;

pub use instances::{Deletion, RestoreStart};
pub use snapshots::{CopyStart, SnapshotPage, SnapshotStart};

use crate::errors::Call;

/// RDS in one Region.
#[derive(Debug, Clone)]
pub struct Rds {
    client: aws_sdk_rds::Client,
    region: Region,
}

impl Rds {
    /// RDS in `region` through `client`, which must be of that Region.
    pub fn new(client: aws_sdk_rds::Client, region: Region) -> Self {
        Self { client, region }
    }

    /// The Region.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Sets tags on a resource; other tags stay. Safe to repeat.
    ///
    /// # Errors
    /// The named error of the call `rds:AddTagsToResource`.
    pub async fn tag(&self, arn: &str, tags: &BTreeMap<String, String>) -> Result<()> {
        let call = Call::write("rds:AddTagsToResource", format!("tagging `{arn}`"));
        self.client
            .add_tags_to_resource()
            .resource_name(arn)
            .set_tags(Some(facts::tags_to_sdk(tags)))
            .send()
            .await
            .map(|_| ())
            .map_err(|fault| call.failure(fault))
    }
}
