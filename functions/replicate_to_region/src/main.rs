//! The Lambda function `replicate_to_region`.

use dr_aws::clients::Clients;
use dr_core::Result;
use replicate_to_region::{Config, Replicator, Request};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), lambda_runtime::Error> {
    dr_aws::run(
        "replicate_to_region",
        start(),
        async |replicator: &Replicator, request: Request, invocation| {
            replicator.handle(request, invocation.received_at).await
        },
    )
    .await
}

async fn start() -> Result<Replicator> {
    let config = Config::read(dr_aws::environment())?;
    let clients = Clients::from_environment().await?;
    Ok(Replicator { clients, config })
}
