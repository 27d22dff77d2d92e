//! The Lambda function `plan_fleet`.

use dr_aws::clients::Clients;
use dr_core::Result;
use plan_fleet::{Config, Planner, Request};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), lambda_runtime::Error> {
    dr_aws::run("plan_fleet", start(), async |planner: &Planner, request: Request, invocation| {
        planner.handle(request, invocation).await
    })
    .await
}

async fn start() -> Result<Planner> {
    let config = Config::read(dr_aws::environment())?;
    let clients = Clients::from_environment().await?;
    Ok(Planner { clients, config })
}
