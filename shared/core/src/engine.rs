//! Database engines, by the names that RDS gives them.
//!
//! What differs between engines is asked here once; whoever needs to know asks for the [`EngineFamily`] and does not
//! compare names.

use std::fmt;

use crate::error::{DrError, ErrorName, Result};

/// The dialect that a database speaks, and with it how it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EngineFamily {
    /// PostgreSQL 14 to 18 and what is compatible with them.
    PostgreSql,
    /// MySQL 8.0 and 8.4, MariaDB 10.6 to 11.8, and what is compatible with them.
    MySql,
}

/// A database engine that Lifeboat supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// RDS for PostgreSQL.
    Postgres,
    /// Aurora, PostgreSQL-compatible.
    AuroraPostgresql,
    /// RDS for MySQL.
    Mysql,
    /// RDS for MariaDB.
    Mariadb,
    /// Aurora, MySQL-compatible.
    AuroraMysql,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Postgres, Self::AuroraPostgresql, Self::Mysql, Self::Mariadb, Self::AuroraMysql];

    /// The engine of a name as in `Engine` of `DescribeDBInstances`; `None` for one that is not supported.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.name() == name)
    }

    /// The engine of a name. `what` says what is being done, to what, for the error.
    ///
    /// # Errors
    /// [`ErrorName::EngineUnsupported`] for a name that is not known.
    pub fn parse(name: &str, what: &str) -> Result<Self> {
        Self::of_name(name).ok_or_else(|| {
            DrError::new(ErrorName::EngineUnsupported, format!("{what}: its engine is `{name}`"))
        })
    }

    /// The engine of a name in a version that is supported.
    ///
    /// # Errors
    /// [`ErrorName::EngineUnsupported`] for an engine or a version that is not supported.
    pub fn supported(name: &str, version: &str, what: &str) -> Result<Self> {
        let engine = Self::parse(name, what)?;
        if engine.supports(version) {
            return Ok(engine);
        }
        Err(DrError::new(ErrorName::EngineUnsupported, format!("{what}: it is {engine} {version}"))
            .with_remedy(format!("Supported are the versions {} of {engine}.", engine.versions().join(", "))))
    }

    /// RDS's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::AuroraPostgresql => "aurora-postgresql",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
            Self::AuroraMysql => "aurora-mysql",
        }
    }

    /// Its family.
    pub const fn family(self) -> EngineFamily {
        match self {
            Self::Postgres | Self::AuroraPostgresql => EngineFamily::PostgreSql,
            Self::Mysql | Self::Mariadb | Self::AuroraMysql => EngineFamily::MySql,
        }
    }

    /// Whether it is an engine of Aurora, whose storage belongs to a cluster.
    pub const fn is_aurora(self) -> bool {
        matches!(self, Self::AuroraPostgresql | Self::AuroraMysql)
    }

    /// The versions that are supported, as the beginning of `EngineVersion`.
    pub const fn versions(self) -> &'static [&'static str] {
        match self.family() {
            EngineFamily::PostgreSql => &["14", "15", "16", "17", "18"],
            EngineFamily::MySql => match self {
                Self::Mariadb => &["10.6", "10.11", "11.4", "11.8"],
                // Aurora's versions are such as `8.0.mysql_aurora.3.08.1`.
                Self::AuroraMysql => &["8.0"],
                _ => &["8.0", "8.4"],
            },
        }
    }

    /// Whether a version such as `16.4`, `8.0.41` or `8.0.mysql_aurora.3.08.1` is supported.
    pub fn supports(self, version: &str) -> bool {
        self.versions().iter().any(|supported| {
            version.strip_prefix(supported).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_of_rds_are_known_with_their_family_and_others_are_refused() {
        let cases = [
            ("postgres", Some(EngineFamily::PostgreSql)),
            ("aurora-postgresql", Some(EngineFamily::PostgreSql)),
            ("mysql", Some(EngineFamily::MySql)),
            ("mariadb", Some(EngineFamily::MySql)),
            ("aurora-mysql", Some(EngineFamily::MySql)),
            ("aurora", None),
            ("oracle-ee", None),
            ("sqlserver-se", None),
            ("db2-se", None),
            ("custom-oracle-ee", None),
            ("docdb", None),
            ("neptune", None),
            ("Postgres", None),
            ("", None),
        ];
        for (name, family) in cases {
            let parsed = Engine::parse(name, "looking at database `x`");
            assert_eq!(parsed.as_ref().ok().map(|engine| engine.family()), family, "{name}");
            if let Err(error) = parsed {
                assert_eq!(error.name(), ErrorName::EngineUnsupported);
                assert!(error.what().contains(&format!("`{name}`")), "{error}");
            }
        }
    }

    #[test]
    fn versions_are_told_by_their_beginning_and_not_by_their_digits() {
        let cases = [
            ("postgres", "14.1", true),
            ("postgres", "18", true),
            ("postgres", "13.9", false),
            ("postgres", "19.1", false),
            ("postgres", "1", false),
            ("postgres", "140.1", false),
            ("mysql", "8.0.41", true),
            ("mysql", "8.4.3", true),
            ("mysql", "8.00.1", false),
            ("mysql", "5.7.44", false),
            ("mysql", "9.1.0", false),
            ("mariadb", "10.11.14", true),
            ("mariadb", "10.6.19", true),
            ("mariadb", "10.1.48", false),
            ("mariadb", "10.5.27", false),
            ("aurora-mysql", "8.0.mysql_aurora.3.08.1", true),
            ("aurora-mysql", "5.7.mysql_aurora.2.12.1", false),
            ("aurora-postgresql", "16.6", true),
        ];
        for (name, version, supported) in cases {
            let found = Engine::supported(name, version, "looking");
            assert_eq!(found.is_ok(), supported, "{name} {version}");
        }
    }

    #[test]
    fn every_engine_is_found_by_its_own_name() {
        for engine in Engine::ALL {
            assert_eq!(Engine::of_name(engine.name()), Some(engine));
            assert_eq!(engine.is_aurora(), engine.name().starts_with("aurora"));
        }
    }
}
