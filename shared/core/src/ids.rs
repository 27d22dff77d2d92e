//! Identifiers that are parsed at the edge and trusted inside.
//!
//! Each is a newtype, because two strings of different kinds are easily swapped. Parsing follows the naming
//! rules of the Amazon RDS User Guide, "Quotas and constraints", and of KMS and Step Functions ARNs.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{DrError, ErrorName, Result};

macro_rules! newtype {
    ($(#[$meta:meta])* $name:ident, $parse:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// [`ErrorName::InvalidInput`] with the rule that the text breaks.
            pub fn parse(text: impl Into<String>) -> Result<Self> {
                let text = text.into();
                let check: fn(&str) -> std::result::Result<(), String> = $parse;
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(rule) => Err(DrError::new(
                        ErrorName::InvalidInput,
                        format!(concat!("reading a ", stringify!($name), ": {}"), rule),
                    )),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> std::result::Result<Self, String> {
                let check: fn(&str) -> std::result::Result<(), String> = $parse;
                check(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

/// Letters, digits and hyphens; a letter first; no hyphen last or twice in a row; at most `max` characters.
fn rds_identifier(text: &str, max: usize) -> std::result::Result<(), String> {
    let rule = || {
        format!("it needs 1 to {max} letters, digits or hyphens, a letter first, no hyphen last or doubled")
    };
    let valid = !text.is_empty()
        && text.len() <= max
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !text.ends_with('-')
        && !text.contains("--");
    if valid { Ok(()) } else { Err(rule()) }
}

newtype!(
    /// The identifier of a DB instance: at most 63 characters. RDS stores it in lower case, so upper case is
    /// refused here: two spellings of one database would have two locks.
    DatabaseId,
    |text| {
        rds_identifier(text, 63)?;
        if text.chars().any(|c| c.is_ascii_uppercase()) {
            return Err("RDS keeps instance identifiers in lower case: write it that way".to_owned());
        }
        Ok(())
    }
);

newtype!(
    /// The identifier of a DB snapshot: at most 255 characters. Automated ones are named `rds:…`, those of AWS
    /// Backup `awsbackup:…`.
    SnapshotId,
    |text| {
        if text.starts_with("arn:") {
            let rule = "it is an identifier, not an ARN; a snapshot that another account shares is copied into this \
                        account first";
            return Err(rule.to_owned());
        }
        let bare = text.strip_prefix("rds:").or_else(|| text.strip_prefix("awsbackup:")).unwrap_or(text);
        rds_identifier(bare, 255)
    }
);

newtype!(
    /// The name of an AWS Region, such as `us-west-2`.
    Region,
    |text| {
        let parts: Vec<&str> = text.split('-').collect();
        let valid = (3..=5).contains(&parts.len())
            && parts.iter().all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
            && parts.last().is_some_and(|p| p.chars().all(|c| c.is_ascii_digit()))
            && parts.first().is_some_and(|p| p.len() == 2);
        if valid { Ok(()) } else { Err("it is written like `us-west-2`".to_owned()) }
    }
);

newtype!(
    /// The id of an operation: `<kind>-<16 hexadecimal digits>`.
    OperationId,
    |text| {
        let valid = text.rsplit_once('-').is_some_and(|(kind, hash)| {
            !kind.is_empty()
                && kind.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && hash.len() == 16
                && hash.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase())
        });
        if valid { Ok(()) } else { Err("it is written `<kind>-<16 hexadecimal digits>`".to_owned()) }
    }
);

newtype!(
    /// The ARN of a Step Functions execution.
    ExecutionArn,
    |text| {
        let parts: Vec<&str> = text.splitn(8, ':').collect();
        let valid = parts.len() == 8
            && parts[0] == "arn"
            && parts[2] == "states"
            && matches!(parts[5], "execution" | "express")
            && !parts[7].is_empty();
        if valid { Ok(()) } else { Err("it is written `arn:aws:states:REGION:ACCOUNT:execution:MACHINE:NAME`".to_owned()) }
    }
);

newtype!(
    /// What names a KMS key: a key ARN, an alias ARN, a key id, or `alias/…`.
    KmsKeyId,
    |text| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_/:".contains(c);
        if (1..=2048).contains(&text.len()) && text.chars().all(allowed) {
            Ok(())
        } else {
            Err("it is a key ARN, an alias ARN, a key id, or `alias/NAME`".to_owned())
        }
    }
);

impl ExecutionArn {
    /// The Region in the ARN, `None` for one that is none of AWS's.
    pub fn region(&self) -> Option<Region> {
        self.0.split(':').nth(3).and_then(|region| Region::parse(region).ok())
    }
}

impl KmsKeyId {
    /// The Region in the ARN, `None` for a bare key id or alias.
    pub fn region(&self) -> Option<Region> {
        let mut parts = self.0.split(':');
        (parts.next() == Some("arn")).then(|| parts.nth(2)).flatten().and_then(|r| Region::parse(r).ok())
    }
}

impl OperationId {
    /// The id of the operation that an execution stands for. The same execution always gives the same id, so a
    /// retried or redriven execution finds its own operation.
    pub fn of_execution(kind: &str, execution: &ExecutionArn) -> Self {
        Self(format!("{kind}-{}", &hex(&Sha256::digest(execution.as_str().as_bytes()))[..16]))
    }

    /// The 16 hexadecimal digits.
    pub fn digits(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(_, digits)| digits)
    }
}

impl SnapshotId {
    /// Characters that the name of a cluster snapshot has at most (API reference, `CreateDBClusterSnapshot`).
    pub const CLUSTER_MAX: usize = 63;

    /// The name under which a snapshot is copied: automated names contain a colon, which a copy's may not.
    #[must_use]
    pub fn copy_name(&self) -> Self {
        Self(self.0.replace(':', "-"))
    }

    /// The same for a cluster snapshot, whose name is short: a longer one ends in a hash of the whole.
    #[must_use]
    pub fn cluster_copy_name(&self) -> Self {
        const HASH: usize = 16;
        let name = self.copy_name();
        if name.0.len() <= Self::CLUSTER_MAX {
            return name;
        }
        let hash = hex(&Sha256::digest(name.0.as_bytes()));
        let kept = name.0[..Self::CLUSTER_MAX - HASH - 1].trim_end_matches('-');
        Self(format!("{kept}-{}", &hash[..HASH]))
    }

    /// What `SnapshotType` has to be told beside this name: RDS finds an automated snapshot, or one of AWS Backup, by
    /// its name only with its type (API reference, `DescribeDBSnapshots`).
    pub fn type_to_ask_for(&self) -> Option<&'static str> {
        match self.0.split_once(':') {
            Some(("rds", _)) => Some("automated"),
            Some(("awsbackup", _)) => Some("awsbackup"),
            _ => None,
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn database_ids_follow_the_rules_of_rds() {
        for (text, valid) in [
            ("orders", true),
            ("a", true),
            ("a-1", true),
            (&"a".repeat(63), true),
            (&"a".repeat(64), false),
            ("", false),
            ("1a", false),
            ("a-", false),
            ("a--b", false),
            ("a_b", false),
            ("Orders", false),
            ("a;drop", false),
        ] {
            assert_eq!(DatabaseId::parse(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn automated_snapshots_are_copied_under_a_legal_name() {
        let automated = SnapshotId::parse("rds:orders-2026-01-02-03-04").unwrap();
        assert_eq!(automated.copy_name().as_str(), "rds-orders-2026-01-02-03-04");
        assert!(SnapshotId::parse("rds:").is_err());
        assert!(SnapshotId::parse("arn:aws:rds:us-east-1:123456789012:snapshot:x").is_err());
    }

    #[test]
    fn names_of_cluster_copies_fit_into_63_characters_and_stay_apart() {
        let short = SnapshotId::parse("rds:shop-2026-01-02-03-04").unwrap();
        assert_eq!(short.cluster_copy_name(), short.copy_name());
        let long = |minute: u8| {
            let name = format!("rds:{}-2026-01-02-03-0{minute}", "a".repeat(60));
            SnapshotId::parse(name).unwrap().cluster_copy_name()
        };
        assert_eq!(long(1).as_str().len(), 63);
        assert_ne!(long(1), long(2));
        assert!(SnapshotId::parse(long(1).as_str()).is_ok());
    }

    #[test]
    fn automated_snapshots_are_asked_for_with_their_type() {
        for (name, expected) in
            [("rds:orders-1", Some("automated")), ("awsbackup:job-1", Some("awsbackup")), ("orders-1", None)]
        {
            assert_eq!(SnapshotId::parse(name).unwrap().type_to_ask_for(), expected, "{name}");
        }
    }

    #[test]
    fn regions_are_recognised_by_form() {
        for (text, valid) in [
            ("us-east-1", true),
            ("ap-southeast-2", true),
            ("us-gov-west-1", true),
            ("us-iso-b-east-1", true),
            ("useast1", false),
            ("us-east", false),
            ("US-EAST-1", false),
            ("", false),
        ] {
            assert_eq!(Region::parse(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn an_operation_id_depends_on_the_execution_alone() {
        let a = ExecutionArn::parse("arn:aws:states:us-east-1:123456789012:execution:backup:one").unwrap();
        let b = ExecutionArn::parse("arn:aws:states:us-east-1:123456789012:execution:backup:two").unwrap();
        assert_eq!(OperationId::of_execution("backup", &a), OperationId::of_execution("backup", &a));
        assert_ne!(OperationId::of_execution("backup", &a), OperationId::of_execution("backup", &b));
        let id = OperationId::of_execution("backup", &a);
        assert_eq!(OperationId::parse(id.as_str()).unwrap(), id);
        assert_eq!(id.digits().len(), 16);
        assert_eq!(a.region(), Some(Region::parse("us-east-1").unwrap()));
    }

    #[test]
    fn a_key_arn_names_its_region() {
        let arn = KmsKeyId::parse("arn:aws:kms:eu-west-1:123456789012:key/1234").unwrap();
        assert_eq!(arn.region(), Some(Region::parse("eu-west-1").unwrap()));
        assert_eq!(KmsKeyId::parse("alias/backup").unwrap().region(), None);
        assert!(KmsKeyId::parse("").is_err());
        assert!(KmsKeyId::parse("a b").is_err());
    }
}
