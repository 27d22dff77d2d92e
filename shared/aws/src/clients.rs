//! Clients of AWS services: one configuration, one client a service and Region, made when first asked for.
//!
//! Credentials come from the environment, where Lambda puts them; instance metadata is never asked. Retries and
//! timeouts of single calls are the SDK's, configured here once; waiting for something to become ready is the
//! state machines' task.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use dr_core::ids::Region;
use dr_core::{DrError, ErrorName, Result};

/// Time for the TCP and TLS handshake.
const CONNECT: Duration = Duration::from_secs(3);
/// Time for one attempt of a call.
const ATTEMPT: Duration = Duration::from_secs(20);
/// Time for a call with all its attempts: below the timeout of the short functions (60 s).
const CALL: Duration = Duration::from_secs(45);
/// Attempts of a call, the first included.
const ATTEMPTS: u32 = 4;

/// The clients of a function. A clone shares those that are made per Region.
#[derive(Debug, Clone)]
pub struct Clients {
    config: SdkConfig,
    home: Region,
    #[cfg(feature = "rds")]
    rds: Cache<aws_sdk_rds::Client>,
    #[cfg(feature = "kms")]
    kms: Cache<aws_sdk_kms::Client>,
    #[cfg(feature = "s3")]
    s3: std::sync::OnceLock<aws_sdk_s3::Client>,
    #[cfg(feature = "secrets")]
    secrets: std::sync::OnceLock<aws_sdk_secretsmanager::Client>,
    #[cfg(feature = "dynamodb")]
    dynamodb: std::sync::OnceLock<aws_sdk_dynamodb::Client>,
}

#[cfg(any(feature = "rds", feature = "kms"))]
type Cache<C> = std::sync::Arc<std::sync::Mutex<std::collections::HashMap<Region, C>>>;

impl Clients {
    /// Reads the environment: `AWS_REGION`, credentials, and `AWS_ENDPOINT_URL` and `CHAOS_REGION_BLOCKS_TABLE` where they
    /// are set. Calls nothing, and reads neither files nor other variables of the SDK: Lambda sets none, and the code that would look for profiles,
    /// roles and instance metadata is left out of the functions.
    ///
    /// # Errors
    /// [`ErrorName::InvalidConfiguration`] when the Region is missing or malformed.
    #[expect(clippy::unused_async, reason = "functions are started by futures")]
    pub async fn from_environment() -> Result<Self> {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let credentials = SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new());
        let mut environment = crate::environment();
        let mut read = |name| environment.optional(name, |text| Ok(text.to_owned()));
        let mut config = SdkConfig::builder()
            .behavior_version(behavior())
            .region(read("AWS_REGION").map(aws_config::Region::new))
            .credentials_provider(credentials)
            .identity_cache(IdentityCache::lazy().build())
            .http_client(http)
            .retry_config(retries())
            .timeout_config(timeouts());
        config.set_endpoint_url(read("AWS_ENDPOINT_URL"));
        let clients = Self::new(config.build())?;
        #[cfg(feature = "blocks")]
        if let Some(table) = read(crate::blocks::TABLE) {
            return Ok(clients.behind_blocks(table));
        }
        Ok(clients)
    }

    /// The same clients, whose calls do not reach a Region while the table says that an experiment blocks it. To be asked
    /// for before the first client is made.
    #[cfg(feature = "blocks")]
    #[must_use]
    pub fn behind_blocks(self, table: String) -> Self {
        Self { config: crate::blocks::gated(&self.config, &self.home, table), ..self }
    }

    /// Clients over a ready configuration.
    ///
    /// # Errors
    /// [`ErrorName::InvalidConfiguration`] when it names no Region, or a malformed one.
    pub fn new(config: SdkConfig) -> Result<Self> {
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let home = Region::parse(region).map_err(|error| {
            DrError::new(
                ErrorName::InvalidConfiguration,
                "reading the environment: AWS_REGION is missing or malformed",
            )
            .with_source(error)
        })?;
        Ok(Self {
            config,
            home,
            #[cfg(feature = "rds")]
            rds: Cache::default(),
            #[cfg(feature = "kms")]
            kms: Cache::default(),
            #[cfg(feature = "s3")]
            s3: std::sync::OnceLock::new(),
            #[cfg(feature = "secrets")]
            secrets: std::sync::OnceLock::new(),
            #[cfg(feature = "dynamodb")]
            dynamodb: std::sync::OnceLock::new(),
        })
    }

    /// The Region that the function runs in.
    pub fn home(&self) -> &Region {
        &self.home
    }

    /// The configuration under the clients: credentials for a token, for example.
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// RDS in a Region.
    #[cfg(feature = "rds")]
    pub fn rds(&self, region: &Region) -> crate::rds::Rds {
        let client = cached(&self.rds, region, || {
            let config = aws_sdk_rds::config::Builder::from(&self.config).region(sdk_region(region)).build();
            aws_sdk_rds::Client::from_conf(config)
        });
        crate::rds::Rds::new(client, region.clone())
    }

    /// KMS in a Region.
    #[cfg(feature = "kms")]
    pub fn kms(&self, region: &Region) -> crate::kms::Kms {
        let client = cached(&self.kms, region, || {
            let config = aws_sdk_kms::config::Builder::from(&self.config).region(sdk_region(region)).build();
            aws_sdk_kms::Client::from_conf(config)
        });
        crate::kms::Kms::new(client, region.clone())
    }

    /// CloudWatch in a Region.
    #[cfg(feature = "cloudwatch")]
    pub fn measures(&self, region: &Region) -> crate::measures::Measures {
        crate::measures::Measures::new(&self.config, region.clone())
    }

    /// SNS in the function's Region.
    #[cfg(feature = "sns")]
    pub fn topics(&self) -> crate::topics::Topics {
        crate::topics::Topics::new(aws_sdk_sns::Client::new(&self.config))
    }

    /// A bucket in the function's Region.
    #[cfg(feature = "s3")]
    pub fn bucket(&self, name: impl Into<String>) -> crate::objects::Bucket {
        crate::objects::Bucket::new(self.s3(), name)
    }

    /// A bucket in another Region. S3 would answer a request that is signed for a wrong Region with a redirection, which
    /// the SDK does not follow.
    #[cfg(feature = "s3")]
    pub fn bucket_in(&self, region: &Region, name: impl Into<String>) -> crate::objects::Bucket {
        let config = aws_sdk_s3::config::Builder::from(&self.config)
            .region(sdk_region(region))
            .force_path_style(self.config.endpoint_url().is_some())
            .build();
        crate::objects::Bucket::new(aws_sdk_s3::Client::from_conf(config), name)
    }

    /// S3 in the function's Region. Another endpoint than AWS's is spoken to with the bucket in the path, since
    /// its host name has no sub-domains.
    #[cfg(feature = "s3")]
    pub fn s3(&self) -> aws_sdk_s3::Client {
        self.s3
            .get_or_init(|| {
                let config = aws_sdk_s3::config::Builder::from(&self.config)
                    .force_path_style(self.config.endpoint_url().is_some())
                    .build();
                aws_sdk_s3::Client::from_conf(config)
            })
            .clone()
    }

    /// Secrets Manager in the function's Region.
    #[cfg(feature = "secrets")]
    pub fn secrets(&self) -> crate::secrets::Secrets {
        let client = self.secrets.get_or_init(|| aws_sdk_secretsmanager::Client::new(&self.config)).clone();
        crate::secrets::Secrets::new(client, self.home.clone())
    }

    /// DynamoDB in another Region.
    #[cfg(feature = "dynamodb")]
    pub fn dynamodb_in(&self, region: &Region) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::config::Builder::from(&self.config).region(sdk_region(region));
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// DynamoDB in the function's Region.
    #[cfg(feature = "dynamodb")]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        self.dynamodb.get_or_init(|| aws_sdk_dynamodb::Client::new(&self.config)).clone()
    }
}

/// The SDK behaviour that was tested with: a newer one is a change of its own.
pub fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(ATTEMPTS)
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(CALL)
        .build()
}

#[cfg(any(feature = "rds", feature = "kms", feature = "s3", feature = "dynamodb"))]
fn sdk_region(region: &Region) -> aws_config::Region {
    aws_config::Region::new(region.as_str().to_owned())
}

#[cfg(any(feature = "rds", feature = "kms"))]
fn cached<C: Clone>(cache: &Cache<C>, region: &Region, make: impl FnOnce() -> C) -> C {
    // A panic while making a client leaves the map as it was, so a poisoned lock is still good.
    let mut clients = cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    clients.entry(region.clone()).or_insert_with(make).clone()
}
