//! The Lambda function `validate_backup`.

// The futures of SDK and database calls nest deeper than the compiler follows by default.
#![recursion_limit = "256"]

use std::sync::OnceLock;

use dr_aws::clients::Clients;
use dr_aws::objects::Bucket;
use dr_core::{DrError, ErrorName, Result};
use dr_database::Security;
use validate_backup::{Config, Handler, Reach, Request};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), lambda_runtime::Error> {
    dr_aws::run(
        "validate_backup",
        start(),
        async |handler: &Handler<Bucket>, request: Request, invocation| {
            handler.handle(request, invocation).await
        },
    )
    .await
}

async fn start() -> Result<Handler<Bucket>> {
    let config = Config::read(dr_aws::environment())?;
    let clients = Clients::from_environment().await?;
    let security = match &config.ca_file {
        Some(path) => OnceLock::from(Security::verified(&std::fs::read(path).map_err(|error| {
            DrError::new(ErrorName::InvalidConfiguration, format!("reading DR_DB_CA_FILE `{path}`"))
                .with_source(error)
        })?)?),
        None => OnceLock::new(),
    };
    let home = config.home.map(|(region, bucket)| clients.bucket_in(&region, bucket));
    Ok(Handler { store: clients.bucket(config.metadata_bucket), home, reach: Reach { clients, security } })
}
