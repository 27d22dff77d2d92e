//! The Lambda function `restore_database`.

use dr_aws::clients::Clients;
use dr_core::Result;
use restore_database::{Config, Request, Restorer};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), lambda_runtime::Error> {
    dr_aws::run("restore_database", start(), async |restorer: &Restorer, request: Request, invocation| {
        restorer.handle(request, invocation.received_at).await
    })
    .await
}

async fn start() -> Result<Restorer> {
    let config = Config::read(dr_aws::environment())?;
    let clients = Clients::from_environment().await?;
    Ok(Restorer { clients, config })
}
