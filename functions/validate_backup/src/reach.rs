//! From a database's name to a connection: endpoint, credentials, whom to trust.
//!
//! Nothing here connects. Passwords and tokens are handed on and never printed.

use std::sync::OnceLock;

use aws_sdk_rds::auth_token::{AuthTokenGenerator, Config as TokenConfig};
use dr_aws::clients::Clients;
use dr_core::ids::{DatabaseId, SnapshotId};
use dr_core::observed::{DatabaseFacts, DatabaseKind, Endpoint, SnapshotFacts};
use dr_core::plan::TemporaryTarget;
use dr_core::request::Credentials;
use dr_core::{DrError, Engine, EngineFamily, ErrorName, Result};
use dr_database::{ConnectionSettings, Password, Security};

/// The tag that names the secret of a database's user.
const SECRET_TAG: &str = "lifeboat:secret-id";
/// The database of PostgreSQL to connect to where the instance names none. MySQL needs none.
const DEFAULT_DATABASE: &str = "postgres";
/// Statuses in which an instance accepts connections. RDS takes a snapshot in `backing-up`, so that the source has
/// it just when it is observed.
const SERVING: &[&str] = &[
    "available",
    "backing-up",
    "configuring-enhanced-monitoring",
    "configuring-iam-database-auth",
    "configuring-log-exports",
    "modifying",
    "storage-optimization",
    "storage-config-upgrade",
    "storage-initialization",
];

/// Finds databases and what connecting to them needs.
#[derive(Debug)]
pub struct Reach {
    /// AWS.
    pub clients: Clients,
    /// Whom to trust: Amazon's authorities for RDS, which are read when the first connection needs them, where nobody
    /// else is named.
    pub security: OnceLock<Security>,
}

impl Reach {
    /// Facts of an instance, or of a cluster with its writer endpoint, that serves. Without a kind it is looked for as
    /// both.
    ///
    /// # Errors
    /// `DatabaseMissing`, `DatabaseAmbiguous`, `DatabaseUnavailable`, `EngineUnsupported`, or of the call.
    pub async fn database(&self, id: &DatabaseId, kind: Option<DatabaseKind>) -> Result<DatabaseFacts> {
        let facts = self.in_any_status(id, kind).await?;
        usable(&facts).map(|()| facts)
    }

    /// Facts of an instance or of a cluster whatever its status, for who finds out by connecting whether it serves: RDS
    /// says so minutes later.
    ///
    /// # Errors
    /// `DatabaseMissing`, `DatabaseAmbiguous`, `EngineUnsupported`, or of the call.
    pub async fn in_any_status(&self, id: &DatabaseId, kind: Option<DatabaseKind>) -> Result<DatabaseFacts> {
        let region = self.clients.home();
        let what = || format!("looking for database `{id}` in {region}");
        let facts = self
            .clients
            .rds(region)
            .find_database(id, kind)
            .await
            .found_or_else(|| DrError::new(ErrorName::DatabaseMissing, what()))?;
        supported(&facts).map(|()| facts)
    }

    /// A connection to the source, under the credentials that were asked for or that the instance names.
    ///
    /// # Errors
    /// `CredentialsMissing`, `DatabaseUnavailable`, or of the calls.
    pub async fn source(
        &self,
        facts: &DatabaseFacts,
        credentials: Option<&Credentials>,
    ) -> Result<ConnectionSettings> {
        let endpoint = endpoint(facts)?;
        let (user, password) = match choose(facts, credentials)? {
            Chosen::Secret(id) => self.secret(&id).await?,
            Chosen::Token(user) => {
                let token = self.token(facts, endpoint, &user).await?;
                (user, token)
            }
        };
        self.settings(facts, endpoint, user, password)
    }

    /// A connection to a temporary restore: its master user, and the password that was made for it.
    ///
    /// # Errors
    /// `CredentialsMissing`, `DatabaseMissing`, `DatabaseUnavailable`, or of the calls.
    pub async fn target(&self, target: &TemporaryTarget) -> Result<ConnectionSettings> {
        let facts = self.database(&target.instance_id, Some(DatabaseKind::Instance)).await?;
        let endpoint = endpoint(&facts)?;
        let (user, password) = self.secret(&target.secret_id).await?;
        let user = facts.master_username.clone().unwrap_or(user);
        self.settings(&facts, endpoint, user, password)
    }

    /// Facts of a snapshot of this Region, of an instance or of a cluster; without a kind it is looked for as both.
    ///
    /// # Errors
    /// `SnapshotMissing`, `DatabaseAmbiguous`, or of the call.
    pub async fn snapshot(&self, id: &SnapshotId, kind: Option<DatabaseKind>) -> Result<SnapshotFacts> {
        let region = self.clients.home();
        self.clients.rds(region).find_snapshot(id, kind).await.found_or_else(|| {
            DrError::new(ErrorName::SnapshotMissing, format!("looking for snapshot `{id}` in {region}"))
        })
    }

    fn settings(
        &self,
        facts: &DatabaseFacts,
        endpoint: &Endpoint,
        user: String,
        password: Password,
    ) -> Result<ConnectionSettings> {
        let database = facts.database_name.as_deref().unwrap_or(DEFAULT_DATABASE);
        let settings = ConnectionSettings::new(
            endpoint.address.clone(),
            endpoint.port,
            user,
            Some(password),
            database,
            self.security()?,
        );
        let family = Engine::of_name(&facts.engine).map_or(EngineFamily::PostgreSql, Engine::family);
        Ok(settings.speaking(family))
    }

    fn security(&self) -> Result<Security> {
        if let Some(known) = self.security.get() {
            return Ok(known.clone());
        }
        let amazon = Security::rds()?;
        Ok(self.security.get_or_init(|| amazon).clone())
    }

    async fn secret(&self, id: &str) -> Result<(String, Password)> {
        let secret = self.clients.secrets().read(id).await?.ok_or_else(|| {
            DrError::new(ErrorName::CredentialsMissing, format!("reading secret `{id}`: it does not exist"))
        })?;
        Ok((secret.username, Password::new(secret.password)))
    }

    async fn token(&self, facts: &DatabaseFacts, endpoint: &Endpoint, user: &str) -> Result<Password> {
        let fault = |error: aws_sdk_rds::error::BoxError| {
            DrError::new(
                ErrorName::CredentialsMissing,
                format!("making an authentication token for `{user}` on `{}`", facts.id),
            )
            .with_source(error)
        };
        let config = TokenConfig::builder()
            .hostname(&endpoint.address)
            .port(u64::from(endpoint.port))
            .username(user)
            .build()
            .map_err(fault)?;
        let token = AuthTokenGenerator::new(config).auth_token(self.clients.config()).await.map_err(fault)?;
        Ok(Password::new(token.as_str()))
    }
}

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Chosen {
    Secret(String),
    Token(String),
}

/// What was asked for; else RDS's managed secret; else the secret that the instance's tag names.
fn choose(facts: &DatabaseFacts, credentials: Option<&Credentials>) -> Result<Chosen> {
    match credentials {
        Some(Credentials::SecretId(id)) => Ok(Chosen::Secret(id.clone())),
        Some(Credentials::IamUser(user)) if facts.iam_authentication => Ok(Chosen::Token(user.clone())),
        Some(Credentials::IamUser(user)) => Err(DrError::new(
            ErrorName::CredentialsMissing,
            format!("connecting to `{}` as `{user}`: it does not accept IAM authentication", facts.id),
        )
        .with_remedy("Enable IAM database authentication on the instance, or name a secret.")),
        None => facts
            .master_user_secret_arn
            .as_ref()
            .or_else(|| facts.tags.get(SECRET_TAG))
            .map(|id| Chosen::Secret(id.clone()))
            .ok_or_else(|| {
                DrError::new(
                    ErrorName::CredentialsMissing,
                    format!(
                        "connecting to `{}`: neither the request nor the instance names a secret",
                        facts.id
                    ),
                )
            }),
    }
}

fn supported(facts: &DatabaseFacts) -> Result<()> {
    let what = format!("looking at database `{}`", facts.id);
    Engine::supported(&facts.engine, &facts.engine_version, &what).map(drop)
}

fn usable(facts: &DatabaseFacts) -> Result<()> {
    supported(facts)?;
    if !SERVING.contains(&facts.status.as_str()) {
        return Err(DrError::new(
            ErrorName::DatabaseUnavailable,
            format!("looking at database `{}`: its status is `{}`", facts.id, facts.status),
        ));
    }
    Ok(())
}

fn endpoint(facts: &DatabaseFacts) -> Result<&Endpoint> {
    facts.endpoint.as_ref().ok_or_else(|| {
        DrError::new(
            ErrorName::DatabaseUnavailable,
            format!("looking at database `{}`: it has no endpoint yet", facts.id),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn facts(change: fn(&mut DatabaseFacts)) -> DatabaseFacts {
        let mut facts: DatabaseFacts = serde_json::from_value(json!({
            "id": "orders", "arn": "arn:aws:rds:us-east-1:000000000000:db:orders", "region": "us-east-1",
            "engine": "postgres", "engineVersion": "17.5", "status": "available", "encrypted": true,
            "allocatedStorageGb": 20, "instanceClass": "db.m7g.large", "securityGroupIds": [], "multiAz": false,
            "iamAuthentication": false, "passwordPending": false, "tags": {},
            "endpoint": {"address": "orders.example", "port": 5432}
        }))
        .unwrap();
        change(&mut facts);
        facts
    }

    #[test]
    fn credentials_are_the_ones_asked_for_then_the_managed_then_the_tagged() {
        fn managed(facts: &mut DatabaseFacts) {
            facts.master_user_secret_arn = Some("managed".to_owned());
            facts.tags.insert(SECRET_TAG.to_owned(), "tagged".to_owned());
        }
        fn tagged(facts: &mut DatabaseFacts) {
            facts.tags.insert(SECRET_TAG.to_owned(), "tagged".to_owned());
        }
        fn iam(facts: &mut DatabaseFacts) {
            facts.iam_authentication = true;
        }
        type Change = fn(&mut DatabaseFacts);
        let secret = |id: &str| Some(Chosen::Secret(id.to_owned()));
        let named = Credentials::SecretId("named".to_owned());
        let user = Credentials::IamUser("reader".to_owned());
        let cases: [(Change, Option<&Credentials>, Option<Chosen>); 6] = [
            (managed, Some(&named), secret("named")),
            (managed, None, secret("managed")),
            (tagged, None, secret("tagged")),
            (|_| {}, None, None),
            (iam, Some(&user), Some(Chosen::Token("reader".to_owned()))),
            (managed, Some(&user), None),
        ];
        for (change, asked, expected) in cases {
            match choose(&facts(change), asked) {
                Ok(chosen) => assert_eq!(Some(chosen), expected),
                Err(error) => {
                    assert_eq!(error.name(), ErrorName::CredentialsMissing);
                    assert_eq!(None, expected);
                }
            }
        }
    }

    #[test]
    fn only_a_supported_database_that_serves_is_used() {
        type Change = fn(&mut DatabaseFacts);
        let cases: [(Change, Option<ErrorName>); 9] = [
            (|_| {}, None),
            (|facts| facts.engine = "aurora-postgresql".to_owned(), None),
            (|facts| facts.status = "backing-up".to_owned(), None),
            (|facts| facts.status = "stopped".to_owned(), Some(ErrorName::DatabaseUnavailable)),
            (|facts| facts.status = "something-new".to_owned(), Some(ErrorName::DatabaseUnavailable)),
            (|facts| facts.engine = "oracle-ee".to_owned(), Some(ErrorName::EngineUnsupported)),
            (|facts| facts.engine = "mysql".to_owned(), Some(ErrorName::EngineUnsupported)),
            (|facts| facts.engine_version = "13.4".to_owned(), Some(ErrorName::EngineUnsupported)),
            (
                |facts| {
                    facts.engine = "mariadb".to_owned();
                    facts.engine_version = "10.11.8".to_owned();
                },
                None,
            ),
        ];
        for (change, expected) in cases {
            let facts = facts(change);
            assert_eq!(usable(&facts).err().map(|error| error.name()), expected, "{}", facts.status);
        }
        assert!(endpoint(&facts(|facts| facts.endpoint = None)).is_err());
    }
}
