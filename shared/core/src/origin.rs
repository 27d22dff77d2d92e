//! Where snapshots come from, and what is done with each kind: one table.
//!
//! Manual, automated (`rds:`), AWS Backup's, shared; encrypted or not; of an instance or of a cluster. The table is
//! `docs/snapshot-kinds.md`, which a test compares with this module. Tags of ours are asked for elsewhere
//! (`snapshot`, `replication`): what is not ours is never labelled or deleted, wherever it comes from.

use crate::error::{DrError, ErrorName, Result};
use crate::observed::{DatabaseFacts, DatabaseKind, SnapshotFacts};

/// Who took a snapshot, by `SnapshotType` and by the account that owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A user, or Lifeboat, in this account.
    Manual,
    /// RDS in its backup window; it goes when its retention ends or its database goes.
    Automated,
    /// AWS Backup, which counts and deletes its recovery points itself.
    AwsBackup,
    /// Another account, to whom it belongs; public snapshots too.
    Foreign,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Manual, Self::Automated, Self::AwsBackup, Self::Foreign];

    /// The origin of a `SnapshotType`. A type that is not known yet counts as manual: RDS then says itself what it
    /// does not do.
    pub fn of_type(snapshot_type: &str) -> Self {
        match snapshot_type {
            "automated" => Self::Automated,
            "awsbackup" => Self::AwsBackup,
            "shared" | "public" => Self::Foreign,
            _ => Self::Manual,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Automated => "automated (`rds:`)",
            Self::AwsBackup => "AWS Backup (`awsbackup:`)",
            Self::Foreign => "shared by another account, public",
        }
    }
}

/// What Lifeboat does with a snapshot when it is asked to, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Treatment {
    /// `None`: it is done. Else the error that it ends in.
    pub refused: Option<ErrorName>,
    /// What is done, or why not; part of the error's message.
    pub how: &'static str,
}

const fn done(how: &'static str) -> Treatment {
    Treatment { refused: None, how }
}

const fn refused(name: ErrorName, how: &'static str) -> Treatment {
    Treatment { refused: Some(name), how }
}

/// How a snapshot is proven: restored into a temporary instance or cluster.
pub const fn proving(origin: Origin) -> Treatment {
    match origin {
        Origin::Manual | Origin::Automated => done("restored as it is, under the key that it has"),
        Origin::AwsBackup => {
            done("restored as it is; it is not labelled, and AWS Backup keeps and deletes it")
        }
        // RDS restores a shared encrypted snapshot only from a copy of one's own (RDS User Guide, "Sharing encrypted
        // snapshots"), and a proof of what its owner may delete at any moment proves no recovery point.
        Origin::Foreign => refused(
            ErrorName::SnapshotForeign,
            "it belongs to another account, which may delete it or withdraw its key at any time",
        ),
    }
}

/// How a snapshot is brought into another Region: under that Region's key, or not at all.
pub const fn copying(origin: Origin, kind: DatabaseKind, encrypted: bool) -> Treatment {
    match (origin, kind, encrypted) {
        // RDS can copy across account and Region in one step by now. We do not: the second try of a failed copy is
        // remembered by a tag on the source, and the source must outlive the copying.
        (Origin::Foreign, ..) => refused(
            ErrorName::SnapshotForeign,
            "it belongs to another account, which may delete it or withdraw its key while it is copied",
        ),
        (Origin::AwsBackup, ..) => refused(
            ErrorName::SnapshotForeign,
            "AWS Backup manages it, with copy jobs, vaults and a lifecycle of its own",
        ),
        // API reference, `CopyDBClusterSnapshot`: an error for `KmsKeyId` with an unencrypted source.
        (_, DatabaseKind::Cluster, false) => refused(
            ErrorName::SnapshotUnencrypted,
            "it is a cluster's and not encrypted, and a copy of it cannot be encrypted either",
        ),
        // API reference, `CopyDBSnapshot`: `KmsKeyId` with an unencrypted source encrypts the copy.
        (Origin::Manual, DatabaseKind::Instance, false) => done("copied, and encrypted by that"),
        (Origin::Manual, _, true) => done("copied and re-encrypted, also when its own key is `aws/rds`"),
        (Origin::Automated, DatabaseKind::Instance, false) => {
            done("copied under a name without the colon, and encrypted by that")
        }
        (Origin::Automated, _, true) => done("copied under a name without the colon, and re-encrypted"),
    }
}

/// Whether a snapshot may be proven.
///
/// # Errors
/// [`ErrorName::SnapshotForeign`].
pub fn check_proving(snapshot: &SnapshotFacts) -> Result<()> {
    check(proving(Origin::of_type(&snapshot.kind)), "proving", snapshot)
}

/// Whether a snapshot may be copied.
///
/// # Errors
/// [`ErrorName::SnapshotForeign`], [`ErrorName::SnapshotUnencrypted`].
pub fn check_copying(snapshot: &SnapshotFacts) -> Result<()> {
    let treatment = copying(Origin::of_type(&snapshot.kind), snapshot.database_kind, snapshot.encrypted);
    check(treatment, "copying", snapshot)
}

/// Whether a backup of this database could be copied to other Regions: what is known before its snapshot is taken is
/// said then, and not after hours of proving it.
///
/// # Errors
/// [`ErrorName::SnapshotUnencrypted`].
pub fn check_source(database: &DatabaseFacts) -> Result<()> {
    match copying(Origin::Manual, database.kind, database.encrypted).refused {
        None => Ok(()),
        Some(name) => {
            let (kind, id, region) = (database.kind, &database.id, &database.region);
            let text = format!(
                "looking at {kind} `{id}` in {region}: it is not encrypted, so that no copy of its backup could go to \
                 another Region; no snapshot was taken"
            );
            Err(DrError::new(name, text))
        }
    }
}

fn check(treatment: Treatment, deed: &str, snapshot: &SnapshotFacts) -> Result<()> {
    match treatment.refused {
        None => Ok(()),
        Some(name) => {
            let text = format!("{deed} snapshot `{}` of {}: {}", snapshot.id, snapshot.region, treatment.how);
            Err(DrError::new(name, text))
        }
    }
}

/// The table as Markdown, for the documentation.
pub fn table() -> String {
    use std::fmt::Write as _;
    let cell = |treatment: Treatment| match treatment.refused {
        None => treatment.how.to_owned(),
        Some(name) => format!("**`{name}`**: {}", treatment.how),
    };
    let mut text = "| snapshot | of | encrypted | proven | copied to another Region |\n\
                    | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for origin in Origin::ALL {
        let kinds = [DatabaseKind::Instance, DatabaseKind::Cluster];
        let each = kinds.into_iter().flat_map(|kind| [(kind, true), (kind, false)]);
        let rows: Vec<_> =
            each.map(|(kind, encrypted)| (kind, encrypted, copying(origin, kind, encrypted))).collect();
        let all_alike = rows.iter().all(|(.., treatment)| *treatment == rows[0].2);
        for (kind, encrypted, treatment) in rows {
            let (of, yes_or_no) = match (all_alike, encrypted) {
                (true, _) => ("either kind".to_owned(), "yes or no"),
                (false, true) => (kind.to_string(), "yes"),
                (false, false) => (kind.to_string(), "no"),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {} | {of} | {yes_or_no} | {} | {} |",
                origin.name(),
                cell(proving(origin)),
                cell(treatment)
            );
            if all_alike {
                break;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fixtures::{cluster_snapshot, snapshot};

    #[test]
    fn every_origin_is_proven_or_refused_by_name() {
        for (snapshot_type, expected) in [
            ("manual", None),
            ("automated", None),
            ("awsbackup", None),
            ("shared", Some(ErrorName::SnapshotForeign)),
            ("public", Some(ErrorName::SnapshotForeign)),
            ("something-new", None),
        ] {
            for mut facts in [snapshot("available"), cluster_snapshot("available")] {
                facts.kind = snapshot_type.into();
                assert_eq!(
                    check_proving(&facts).err().map(|error| error.name()),
                    expected,
                    "{snapshot_type}"
                );
            }
        }
    }

    #[test]
    fn copies_are_encrypted_or_there_are_none() {
        use ErrorName::{SnapshotForeign as Foreign, SnapshotUnencrypted as Unencrypted};
        for (snapshot_type, cluster, encrypted, expected) in [
            ("manual", false, true, None),
            ("manual", false, false, None),
            ("manual", true, true, None),
            ("manual", true, false, Some(Unencrypted)),
            ("automated", false, false, None),
            ("automated", true, true, None),
            ("automated", true, false, Some(Unencrypted)),
            ("awsbackup", false, true, Some(Foreign)),
            ("awsbackup", false, false, Some(Foreign)),
            ("awsbackup", true, false, Some(Foreign)),
            ("shared", false, true, Some(Foreign)),
            ("shared", true, false, Some(Foreign)),
            ("public", false, false, Some(Foreign)),
        ] {
            let mut facts = if cluster { cluster_snapshot("available") } else { snapshot("available") };
            facts.kind = snapshot_type.into();
            facts.encrypted = encrypted;
            let error = check_copying(&facts).err();
            let case = format!("{snapshot_type}, cluster {cluster}, encrypted {encrypted}");
            assert_eq!(error.as_ref().map(DrError::name), expected, "{case}");
            if let Some(error) = error {
                assert!(error.what().contains("orders-1"), "{error}");
            }
        }
    }

    #[test]
    fn the_documentation_has_this_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/snapshot-kinds.md");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(&table()), "put this into docs/snapshot-kinds.md:\n{}", table());
    }

    #[test]
    fn what_could_not_be_copied_is_said_before_its_snapshot_is_taken() {
        use crate::fixtures::{cluster, database};
        let plain = |facts: DatabaseFacts| DatabaseFacts { encrypted: false, ..facts };
        for (facts, refused) in [
            (database("orders", "available"), false),
            (plain(database("orders", "available")), false),
            (cluster("shop", "available"), false),
            (plain(cluster("shop", "available")), true),
        ] {
            let name = check_source(&facts).err().map(|error| error.name());
            assert_eq!(
                name,
                refused.then_some(ErrorName::SnapshotUnencrypted),
                "{} {}",
                facts.kind,
                facts.encrypted
            );
        }
    }
}
