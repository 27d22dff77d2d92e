//! Looking at resources and changing them. AWS's are `dr_chaos`'s; a Region, as our functions reach it, is an item of the
//! state table.

use std::collections::BTreeSet;

use dr_core::chaos::blocks::{self, RegionBlock};
use dr_core::chaos::journal::Journal;
use dr_core::chaos::plan::Seen;
use dr_core::chaos::world::{Change, Facts, RegionState, Resource, ResourceKind, State};
use dr_core::observed::{Observed, Tags};
use dr_core::{DrError, ErrorName, Result};
use jiff::{SignedDuration, Timestamp};

use crate::Desk;

/// For how long a Region stays blocked after its experiment must have ended: nobody has to be alive for it to end.
const BLOCK_OUTLASTS: SignedDuration = SignedDuration::from_mins(5);

impl Desk<'_> {
    /// Looks at each resource.
    ///
    /// # Errors
    /// Of the table. What AWS does not tell is an answer.
    pub(crate) async fn look(&self, resources: &BTreeSet<Resource>) -> Result<Seen> {
        let (regions, rest): (BTreeSet<Resource>, BTreeSet<Resource>) =
            resources.iter().cloned().partition(|resource| resource.kind == ResourceKind::Region);
        let mut seen = self.handler.world.look(&rest).await;
        for resource in regions {
            let block: Option<RegionBlock> = self.table.read(&RegionBlock::key(&resource.region)).await?;
            let blocked = block.is_some();
            let state = State::Region(RegionState { blocked });
            let facts = Facts { arn: resource.region.to_string(), tags: Tags::new(), state };
            seen.insert(resource, Observed::Found(facts));
        }
        Ok(seen)
    }

    /// Makes a change; AWS has taken it when this is `Ok`.
    ///
    /// # Errors
    /// What AWS said, by name.
    pub(crate) async fn make(&self, change: &Change, resource: &Resource, journal: &Journal) -> Result<()> {
        match change {
            Change::BlockRegion => self.block(resource, journal).await,
            Change::UnblockRegion => self.unblock(resource).await,
            _ => self.handler.world.make(change, resource).await,
        }
    }

    async fn block(&self, resource: &Resource, journal: &Journal) -> Result<()> {
        let until: Timestamp = journal.deadline + BLOCK_OUTLASTS;
        self.change(&format!("blocking {resource}"), async || {
            let existing: Option<RegionBlock> = self.table.read(&RegionBlock::key(&resource.region)).await?;
            if let Some(other) = existing.as_ref().filter(|other| other.owner != journal.owner) {
                let what = format!("blocking {resource}: {} blocks it", other.owner);
                return Err(DrError::new(ErrorName::OperationInProgress, what));
            }
            let (owner, since) = (&journal.owner, journal.started_at);
            let change = blocks::block(&resource.region, owner, since, until, existing.as_ref());
            Ok((Some(change), ()))
        })
        .await
    }

    pub(crate) async fn unblock(&self, resource: &Resource) -> Result<()> {
        self.change(&format!("unblocking {resource}"), async || {
            let existing: Option<RegionBlock> = self.table.read(&RegionBlock::key(&resource.region)).await?;
            Ok((existing.as_ref().map(blocks::unblock), ()))
        })
        .await
    }
}
