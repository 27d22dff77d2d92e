//! Which KMS key: found, in this Region, enabled.

use super::Call;
use crate::server::fault::Fault;

/// The ARN of the key that a request names. With `--aws-endpoint` KMS is asked; without it any well-formed key of
/// this Region is taken.
pub(super) async fn resolve(call: &Call, key: &str) -> Result<String, Fault> {
    let parts: Vec<&str> = key.splitn(6, ':').collect();
    if let ["arn", _, "kms", region, _, _] = parts[..] {
        if region != call.region {
            return Err(Fault::key(key, &format!("it is of {region}, not of {}", call.region)));
        }
    } else if key.starts_with("arn:") {
        return Err(Fault::key(key, "it is no KMS key"));
    }
    if let Some(aws) = &call.cloud.aws {
        return aws.usable_key(&call.region, key).await;
    }
    let account = &call.cloud.account;
    match parts[..] {
        ["arn", _, _, _, owner, resource]
            if owner.len() == 12 && (resource.starts_with("key/") || resource.starts_with("alias/")) =>
        {
            Ok(key.to_owned())
        }
        [id] if id.starts_with("alias/") || uuid::Uuid::parse_str(id).is_ok() => {
            let resource = if id.starts_with("alias/") { id.to_owned() } else { format!("key/{id}") };
            Ok(format!("arn:aws:kms:{}:{account}:{resource}", call.region))
        }
        _ => Err(Fault::key(key, "it is no key ARN, id or alias")),
    }
}

/// The key of the account that AWS manages for RDS, one a Region.
pub(super) fn managed(call: &Call) -> String {
    format!("arn:aws:kms:{}:{}:key/00000000-0000-4000-8000-0000000aa2d5", call.region, call.cloud.account)
}
