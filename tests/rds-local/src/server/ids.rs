//! Identifier rules, ARNs and the other names that RDS hands out.

use uuid::Uuid;

use super::fault::Fault;

/// Checks an identifier and returns it as RDS stores it, in lower case.
pub(super) fn identifier(parameter: &str, text: &str, longest: usize) -> Result<String, Fault> {
    let fine = text.len() <= longest
        && text.chars().next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '-')
        && !text.ends_with('-')
        && !text.contains("--");
    if fine {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Fault::value(format!(
        "The parameter {parameter} is not a valid identifier. Identifiers must begin with a letter; must contain only \
         ASCII letters, digits, and hyphens; and must not end with a hyphen or contain two consecutive hyphens."
    )))
}

/// Instance identifiers: 63 characters at most.
pub(super) fn instance(parameter: &str, text: &str) -> Result<String, Fault> {
    identifier(parameter, text, 63)
}

/// Snapshot and group identifiers: 255 characters at most.
pub(super) fn snapshot(parameter: &str, text: &str) -> Result<String, Fault> {
    identifier(parameter, text, 255)
}

/// An ARN of RDS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arn {
    pub(super) region: String,
    pub(super) account: String,
    /// db, snapshot, cluster, cluster-snapshot, subgrp, pg, cluster-pg, og.
    pub(super) kind: String,
    pub(super) name: String,
}

impl Arn {
    /// `None` where the text is no RDS ARN. The name may hold colons (`rds:db-2026-...`).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(7, ':');
        if parts.next()? != "arn" || !parts.next()?.starts_with("aws") || parts.next()? != "rds" {
            return None;
        }
        let (region, account) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let (kind, name) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        (!region.is_empty() && !name.is_empty()).then_some(Self { region, account, kind, name })
    }
}

pub(super) fn arn(region: &str, account: &str, kind: &str, name: &str) -> String {
    format!("arn:aws:rds:{region}:{account}:{kind}:{name}")
}

/// A name such as `db-ABCDEFGHIJKLMNOPQRSTUVWXYZ`, unique for ever.
pub(super) fn resource_id() -> String {
    format!("db-{}", letters())
}

/// The same for a cluster.
pub(super) fn cluster_resource_id() -> String {
    format!("{CLUSTER_RESOURCE}{}", letters())
}

/// Whether a resource id is a cluster's.
pub(super) fn is_cluster(resource_id: &str) -> bool {
    resource_id.starts_with(CLUSTER_RESOURCE)
}

const CLUSTER_RESOURCE: &str = "cluster-";

fn letters() -> String {
    let letters: String = Uuid::new_v4().simple().to_string().to_ascii_uppercase();
    letters[..26].to_owned()
}

/// Whether the text is a DB instance class.
pub(super) fn is_class(text: &str) -> bool {
    if text == "db.serverless" {
        return true;
    }
    let mut parts = text.split('.');
    parts.next() == Some("db")
        && parts.next().is_some_and(|family| !family.is_empty())
        && parts.next().is_some_and(|size| !size.is_empty())
}

/// Checks a master password: 8 to 128 printable ASCII characters without slash, quote, at sign and space.
pub(super) fn password(text: &str) -> Result<(), Fault> {
    let wrong = |why: &str| {
        Err(Fault::value(format!("The parameter MasterUserPassword is not a valid password because {why}.")))
    };
    if text.len() < 8 {
        return wrong("it is shorter than 8 characters");
    }
    if text.len() > 128 {
        return wrong("it is longer than 128 characters");
    }
    if !text.chars().all(|char| char.is_ascii_graphic() && !matches!(char, '/' | '"' | '@')) {
        return wrong("only printable ASCII characters besides '/', '@', '\"', ' ' may be used");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn identifiers_follow_the_rules_of_rds() {
        let long = "a".repeat(63);
        for fine in ["a", "orders", "Orders-1", "a-b-c", &long] {
            assert_eq!(instance("X", fine).unwrap(), fine.to_ascii_lowercase());
        }
        let longer = "a".repeat(64);
        for wrong in ["", "1a", "-a", "a-", "a--b", "a_b", "a.b", "rds:a", "ä", &longer] {
            assert_eq!(instance("X", wrong).unwrap_err().code, "InvalidParameterValue", "{wrong}");
        }
        assert!(snapshot("X", &"a".repeat(255)).is_ok());
        assert!(snapshot("X", &"a".repeat(256)).is_err());
    }

    #[test]
    fn arns_are_read_with_colons_in_the_name() {
        let arn = Arn::parse("arn:aws:rds:us-east-1:000000000000:snapshot:rds:db-2026-01-02-03-04").unwrap();
        assert_eq!((arn.kind.as_str(), arn.name.as_str()), ("snapshot", "rds:db-2026-01-02-03-04"));
        for wrong in
            ["snapshot", "arn:aws:s3:::bucket:a:b", "arn:aws:rds:us-east-1:0:db", "arn:aws:rds::0:db:x"]
        {
            assert_eq!(Arn::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn passwords_of_eight_printable_characters_are_taken() {
        for fine in ["12345678", "it's=a!pass#word", &"x".repeat(128)] {
            assert!(password(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "1234567",
            "with space",
            "with/slash",
            "with@sign",
            "with\"quote",
            "mit-ümlaut",
            &"x".repeat(129),
        ] {
            assert!(password(wrong).is_err(), "{wrong}");
        }
    }
}
