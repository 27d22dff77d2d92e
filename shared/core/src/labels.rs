//! Tags by which our resources are known: whose they are, what for, and until when.
//!
//! Ownership is always read from these tags, never from a name. Nothing here reads or writes tags.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{OperationId, Region};
use crate::observed::Tags;

/// The operation that made the resource.
pub const OPERATION_ID: &str = "lifeboat:operation-id";
/// The source database's identifier.
pub const DATABASE: &str = "lifeboat:database";
/// What the resource is for: see [`Role`].
pub const ROLE: &str = "lifeboat:role";
/// What is known about a snapshot: see [`Proof`].
pub const PROOF: &str = "lifeboat:proof";
/// How deep the proof behind [`PROOF`] went: `quick`, `structure` or `content`. See
/// [`crate::proof::judgement::Level`].
pub const PROOF_LEVEL: &str = "lifeboat:proof-level";
/// When the snapshot was last found proven, RFC 3339. It stays when a later proof finds otherwise.
pub const PROVEN_AT: &str = "lifeboat:proven-at";
/// The Region in which the last proof restored it: a copy carries its original's until it is proven by itself.
pub const PROVEN_IN: &str = "lifeboat:proven-in";
/// The tags that say what is known of a snapshot, and that a copy takes over from its original.
pub const CARRIED: [&str; 4] = [PROOF, PROOF_LEVEL, PROVEN_AT, PROVEN_IN];
/// Key of the report that the proof is in.
pub const REPORT: &str = "lifeboat:report";
/// Until when the resource is wanted, RFC 3339.
pub const EXPIRES_AT: &str = "lifeboat:expires-at";
/// ARN of the snapshot that a copy was made of.
pub const SOURCE_ARN: &str = "lifeboat:source-arn";
/// On a copy of a cluster snapshot: when its data was taken, RFC 3339; RDS does not report that.
pub const TAKEN_AT: &str = "lifeboat:taken-at";
/// On a temporary cluster: the class of the instance that is made in it.
pub const INSTANCE_CLASS: &str = "lifeboat:instance-class";
/// On a temporary instance or cluster: when it was first seen available; its password has been set since.
pub const PASSWORD_SET: &str = "lifeboat:password-set";
/// On a database: the secret with the credentials for framing it.
pub const SECRET_ID: &str = "lifeboat:secret-id";

/// What a resource of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A snapshot of a source.
    Backup,
    /// A copy of a snapshot in another Region.
    Copy,
    /// An instance (its cluster, its secret) that exists for one proof only.
    Temporary,
}

impl Role {
    /// The tag's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Copy => "copy",
            Self::Temporary => "temporary",
        }
    }
}

/// What is known about a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// Not examined yet.
    Pending,
    /// Restored, examined, and as its source was.
    Proven,
    /// Examined, and not as its source was: never a recovery point.
    Unproven,
}

impl Proof {
    /// The tag's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Proven => "proven",
            Self::Unproven => "unproven",
        }
    }
}

/// The tags that say whose a resource is and what for.
pub fn mark(role: Role, operation: &OperationId, database: Option<&str>) -> Tags {
    let mut tags = Tags::from([
        (OPERATION_ID.to_owned(), operation.to_string()),
        (ROLE.to_owned(), role.as_str().to_owned()),
    ]);
    if let Some(database) = database {
        tags.insert(DATABASE.to_owned(), database.to_owned());
    }
    tags
}

/// Adds the moment until which the resource is wanted.
pub fn expire(tags: &mut Tags, at: Option<Timestamp>) {
    if let Some(at) = at {
        tags.insert(EXPIRES_AT.to_owned(), at.to_string());
    }
}

/// Adds a user's tags. Those that begin with `aws:` are left out, because AWS takes them from nobody; ours win.
pub fn add_user_tags(tags: &mut Tags, user: &Tags) {
    for (key, value) in user {
        if !key.to_lowercase().starts_with("aws:") && !tags.contains_key(key) {
            tags.insert(key.clone(), value.clone());
        }
    }
}

/// Whether the resource is this operation's, in this role.
pub fn is_of(tags: &Tags, role: Role, operation: &OperationId) -> bool {
    has(tags, OPERATION_ID, operation.as_str()) && has(tags, ROLE, role.as_str())
}

/// Whether a tag has this value.
pub fn has(tags: &Tags, key: &str, value: &str) -> bool {
    tags.get(key).is_some_and(|seen| seen == value)
}

/// The tag on a source snapshot that remembers when its copy to a Region was tried a second time.
pub fn copy_retried(region: &Region) -> String {
    format!("lifeboat:copy-retried-{region}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn user_tags_never_replace_ours_and_never_begin_with_aws() {
        let operation = OperationId::parse("backup-0123456789abcdef").unwrap();
        let mut tags = mark(Role::Backup, &operation, Some("orders"));
        let user = Tags::from([
            ("team".to_owned(), "data".to_owned()),
            ("aws:cloudformation:stack-name".to_owned(), "x".to_owned()),
            ("AWS:x".to_owned(), "x".to_owned()),
            (OPERATION_ID.to_owned(), "somebody".to_owned()),
        ]);
        add_user_tags(&mut tags, &user);
        assert!(is_of(&tags, Role::Backup, &operation));
        assert!(!is_of(&tags, Role::Copy, &operation));
        assert_eq!(tags.len(), 4);
        assert_eq!(tags["team"], "data");
    }
}
