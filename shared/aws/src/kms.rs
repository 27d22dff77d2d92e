//! KMS in one Region: looking at a key, verifying a code. Nothing is encrypted here; RDS and S3 do that with grants of their own.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::MacAlgorithmSpec;
use dr_core::ids::{KmsKeyId, Region};
use dr_core::observed::{KeyFacts, Observed};
use dr_core::{DrError, ErrorName, Result};

use crate::errors::{Call, code_of};

/// KMS in one Region.
#[derive(Debug, Clone)]
pub struct Kms {
    client: aws_sdk_kms::Client,
    region: Region,
}

impl Kms {
    /// KMS in `region` through `client`, which must be of that Region.
    pub fn new(client: aws_sdk_kms::Client, region: Region) -> Self {
        Self { client, region }
    }

    /// Whether `mac` is the HMAC-SHA-256 of a message (at most 4,096 bytes) under this key. A wrong one is no error.
    ///
    /// # Errors
    /// The named error of the call `kms:VerifyMac`.
    pub async fn verify_mac(&self, id: &KmsKeyId, message: &[u8], mac: &[u8]) -> Result<bool> {
        let call =
            Call::read("kms:VerifyMac", format!("verifying a code with key `{id}` in {}", self.region));
        let request = self
            .client
            .verify_mac()
            .key_id(id.as_str())
            .mac_algorithm(MacAlgorithmSpec::HmacSha256)
            .message(Blob::new(message))
            .mac(Blob::new(mac));
        match request.send().await {
            Ok(answer) => Ok(answer.mac_valid()),
            Err(fault) if code_of(&fault) == Some("KMSInvalidMacException") => Ok(false),
            Err(fault) => Err(call.failure(fault)),
        }
    }

    /// Looks for a key by ARN, id or alias; the answer has its ARN.
    pub async fn describe_key(&self, id: &KmsKeyId) -> Observed<KeyFacts> {
        let call = Call::read("kms:DescribeKey", format!("reading key `{id}` in {}", self.region));
        match self.client.describe_key().key_id(id.as_str()).send().await {
            Ok(answer) => {
                let facts = answer.key_metadata().and_then(|key| {
                    Some(KeyFacts {
                        arn: key.arn()?.to_owned(),
                        state: key.key_state()?.as_str().to_owned(),
                        usage: key.key_usage().map(|usage| usage.as_str().to_owned()),
                        spec: key.key_spec().map(|spec| spec.as_str().to_owned()),
                        manager: key.key_manager().map(|manager| manager.as_str().to_owned()),
                        deletion_date: key.deletion_date().and_then(crate::time::timestamp),
                    })
                });
                facts.map_or_else(
                    || {
                        let text = format!("reading key `{id}` in {}: ARN or state is absent", self.region);
                        Observed::Unreachable(DrError::new(ErrorName::AwsFault, text))
                    },
                    Observed::Found,
                )
            }
            Err(fault) if matches!(code_of(&fault), Some("NotFoundException")) => Observed::Missing,
            Err(fault) => Observed::Unreachable(call.failure(fault)),
        }
    }
}
