//! How to reach a server.
//!
//! Nothing in here reads a secret or a file: the caller hands everything over.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dr_core::{DrError, EngineFamily, ErrorName, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

/// Amazon's certificate authorities for RDS of all Regions (see `rds-ca/README.md`).
pub const RDS_CA_BUNDLE: &[u8] = include_bytes!("../rds-ca/global-bundle.pem");

/// A password: never printed, and overwritten when dropped. (The driver keeps a copy while it connects.)
#[derive(Clone)]
pub struct Password(Arc<Zeroizing<String>>);

impl Password {
    /// Takes a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The password itself, for a driver.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Whom to trust.
#[derive(Clone)]
pub enum Security {
    /// TLS, and the server must show a certificate for the host's name or address, signed by one of these
    /// authorities. Made by [`Security::verified`].
    Verified {
        /// For drivers that take it.
        config: Arc<ClientConfig>,
        /// The authorities as PEM, for drivers that make their own.
        bundle: Arc<[u8]>,
    },
    /// A Unix socket without TLS: its directory for PostgreSQL, itself for MySQL. For tests: RDS has none.
    LocalSocket(PathBuf),
}

impl Security {
    /// TLS with full verification against the authorities in `bundle` (PEM, one or many).
    ///
    /// # Errors
    /// [`ErrorName::InvalidConfiguration`] when the bundle is not PEM or holds no certificate.
    pub fn verified(bundle: &[u8]) -> Result<Self> {
        let fault = |what: &str| {
            DrError::new(ErrorName::InvalidConfiguration, format!("reading the CA bundle: {what}"))
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle) {
            let certificate = certificate.map_err(|error| fault("it is not PEM").with_source(error))?;
            roots.add(certificate).map_err(|error| fault("a certificate is malformed").with_source(error))?;
        }
        if roots.is_empty() {
            return Err(fault("it holds no certificate"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| fault("no TLS version is usable").with_source(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::Verified { config: Arc::new(config), bundle: bundle.into() })
    }

    /// TLS with full verification against Amazon's authorities for RDS.
    ///
    /// # Errors
    /// None in practice: a test reads every certificate of the embedded bundle.
    pub fn rds() -> Result<Self> {
        Self::verified(RDS_CA_BUNDLE)
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified { .. } => f.write_str("Verified(..)"),
            Self::LocalSocket(directory) => f.debug_tuple("LocalSocket").field(directory).finish(),
        }
    }
}

/// What a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every transaction is read-only.
    ReadOnly,
    /// Writing is allowed: the heartbeat on a source, preparations on a restore.
    ReadWrite,
}

/// Everything a connection needs.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// What is spoken there.
    pub family: EngineFamily,
    /// Host name or address; what the certificate must be for. Only a label when the security is a local socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database user.
    pub user: String,
    /// Its password, or an IAM authentication token; none only where the server asks for none.
    pub password: Option<Password>,
    /// The database to connect to first.
    pub database: String,
    /// Whom to trust.
    pub security: Security,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one statement may take on the server.
    pub statement_timeout: Duration,
}

impl ConnectionSettings {
    /// Settings of a PostgreSQL server with the usual limits: 10 s to connect, 10 minutes for a statement.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        user: impl Into<String>,
        password: Option<Password>,
        database: impl Into<String>,
        security: Security,
    ) -> Self {
        Self {
            family: EngineFamily::PostgreSql,
            host: host.into(),
            port,
            user: user.into(),
            password,
            database: database.into(),
            security,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_mins(10),
        }
    }

    /// The same place, where something else is spoken.
    #[must_use]
    pub fn speaking(self, family: EngineFamily) -> Self {
        Self { family, ..self }
    }

    /// The same server, another database.
    #[must_use]
    pub fn for_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// Where it leads, for messages: no user and no password.
    pub fn place(&self) -> String {
        format!("database `{}` at {}:{}", self.database, self.host, self.port)
    }
}
