//! Regions that our own functions are kept from calling: the fault `region-unreachable`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::changes::{Change, Expect, Item, Write};
use crate::ids::{OperationId, Region};

/// A Region that our functions do not call. An item of the state table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionBlock {
    /// The table's key, `region-block#<region>`.
    pub operation_id: String,
    /// `region-block`, so that they can be listed by the index.
    #[serde(rename = "type")]
    pub kind: String,
    /// The Region.
    pub region: Region,
    /// The experiment.
    pub owner: OperationId,
    /// Since when; part of an index.
    pub started_at: Timestamp,
    /// It counts until then, whether or not somebody removes it.
    pub blocked_until: Timestamp,
    /// Counts the writes.
    pub version: u64,
    /// When DynamoDB may delete the item, in seconds since 1970 (TTL).
    pub expires_at: i64,
}

impl RegionBlock {
    /// The table's key.
    pub fn key(region: &Region) -> String {
        format!("region-block#{region}")
    }

    /// Whether it counts now.
    pub fn in_force(&self, now: Timestamp) -> bool {
        now < self.blocked_until
    }
}

/// Blocks a Region; again, for longer, when it is blocked.
pub fn block(
    region: &Region,
    owner: &OperationId,
    since: Timestamp,
    until: Timestamp,
    existing: Option<&RegionBlock>,
) -> Change {
    let block = RegionBlock {
        operation_id: RegionBlock::key(region),
        kind: "region-block".to_owned(),
        region: region.clone(),
        owner: owner.clone(),
        started_at: since,
        blocked_until: until,
        version: existing.map_or(1, |existing| existing.version + 1),
        expires_at: until.as_second(),
    };
    let expected = existing.map_or(Expect::Absent, |existing| Expect::Version(existing.version));
    silent(Write::Put(Item::RegionBlock(block), expected))
}

/// Lets our functions call a Region again.
pub fn unblock(existing: &RegionBlock) -> Change {
    silent(Write::Delete(existing.operation_id.clone(), Expect::Version(existing.version)))
}

fn silent(write: Write) -> Change {
    Change { writes: vec![write], answer: serde_json::Value::Null, ended: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn a_block_ends_by_itself_and_is_removed_as_it_was_read() {
        let region = Region::parse("eu-west-1").unwrap();
        let owner = OperationId::parse("chaos-0123456789abcdef").unwrap();
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let until = now + SignedDuration::from_mins(5);
        let change = block(&region, &owner, now, until, None);
        let [Write::Put(Item::RegionBlock(first), Expect::Absent)] = change.writes.as_slice() else {
            unreachable!("{change:?}")
        };
        assert!(first.in_force(now) && !first.in_force(until));
        let again = block(&region, &owner, now, until, Some(first));
        assert!(matches!(again.writes.as_slice(), [Write::Put(_, Expect::Version(1))]));
        assert_eq!(
            unblock(first).writes,
            [Write::Delete("region-block#eu-west-1".to_owned(), Expect::Version(1))]
        );
    }
}
