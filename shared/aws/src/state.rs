//! The state table: reads items consistently, applies a [`Change`] whole or not at all.
//!
//! Decides nothing: what is written, and under which conditions, comes from `dr_core::changes`. There is no scan
//! in here, and no read from an index: indexes are eventually consistent and serve people, not decisions.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Delete, Put, TransactWriteItem};
use dr_core::changes::{Change, Expect, Item, Write};
use dr_core::{DrError, ErrorName, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::errors::Call;

/// The table's key attribute.
const KEY: &str = "operationId";

/// What came of an attempt to apply a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Everything was written.
    Yes,
    /// Nothing was written: an item is no longer what it was when the change was decided. Look again.
    LostRace,
}

/// The state table.
#[derive(Debug, Clone)]
pub struct StateTable {
    client: Client,
    name: String,
}

impl StateTable {
    /// The table of this name.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }

    /// Reads one item, strongly consistent.
    ///
    /// # Errors
    /// [`ErrorName::StateTableMissing`], [`ErrorName::MetadataDamaged`] for an item that is not what it should be,
    /// and the errors of AWS calls.
    pub async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let request = self
            .client
            .get_item()
            .table_name(&self.name)
            .key(KEY, AttributeValue::S(key.to_owned()))
            .consistent_read(true);
        let answer = Box::pin(request.send()).await.map_err(|error| {
            Call::read("dynamodb:GetItem", format!("reading item {key} of table {}", self.name))
                .failure(error)
        })?;
        answer.item.map(|item| self.decode(key, item)).transpose()
    }

    /// Applies a change: all of its writes in one transaction, or none.
    ///
    /// # Errors
    /// [`ErrorName::StateTableMissing`] and the errors of AWS calls. A condition that does not hold is no error but
    /// [`Applied::LostRace`].
    pub async fn apply(&self, change: &Change) -> Result<Applied> {
        if change.writes.is_empty() {
            return Ok(Applied::Yes);
        }
        let writes = change.writes.iter().map(|write| self.encode(write)).collect::<Result<Vec<_>>>()?;
        let request = self.client.transact_write_items().set_transact_items(Some(writes));
        let sent = Box::pin(request.send()).await;
        match sent {
            Ok(_) => Ok(Applied::Yes),
            Err(error) => {
                let lost = error.as_service_error().is_some_and(|error| match error {
                    aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(
                        cancelled,
                    ) => cancelled.cancellation_reasons().iter().any(|reason| {
                        matches!(reason.code(), Some("ConditionalCheckFailed" | "TransactionConflict"))
                    }),
                    other => matches!(other.code(), Some("TransactionInProgressException")),
                });
                if lost {
                    Ok(Applied::LostRace)
                } else {
                    let what = format!("writing a change to table {}", self.name);
                    Err(Call::write("dynamodb:TransactWriteItems", what).failure(error))
                }
            }
        }
    }

    fn decode<T: DeserializeOwned>(&self, key: &str, item: HashMap<String, AttributeValue>) -> Result<T> {
        serde_dynamo::from_item(item).map_err(|error| {
            DrError::new(ErrorName::MetadataDamaged, format!("reading item {key} of table {}", self.name))
                .with_remedy(
                    "The item was changed by hand or by another version: restore it from point-in-time recovery.",
                )
                .with_source(error)
        })
    }

    fn encode(&self, write: &Write) -> Result<TransactWriteItem> {
        let built = match write {
            Write::Put(item, expect) => {
                let condition = Condition::of(*expect);
                let put = Put::builder()
                    .table_name(&self.name)
                    .set_item(Some(encode_item(item)?))
                    .condition_expression(condition.expression)
                    .expression_attribute_names("#c", condition.attribute)
                    .set_expression_attribute_values(condition.values)
                    .build();
                put.map(|put| TransactWriteItem::builder().put(put).build())
            }
            Write::Delete(key, expect) => {
                let condition = Condition::of(*expect);
                let delete = Delete::builder()
                    .table_name(&self.name)
                    .key(KEY, AttributeValue::S(key.clone()))
                    .condition_expression(condition.expression)
                    .expression_attribute_names("#c", condition.attribute)
                    .set_expression_attribute_values(condition.values)
                    .build();
                delete.map(|delete| TransactWriteItem::builder().delete(delete).build())
            }
            Write::Check(key, expect) => {
                let condition = Condition::of(*expect);
                let check = ConditionCheck::builder()
                    .table_name(&self.name)
                    .key(KEY, AttributeValue::S(key.clone()))
                    .condition_expression(condition.expression)
                    .expression_attribute_names("#c", condition.attribute)
                    .set_expression_attribute_values(condition.values)
                    .build();
                check.map(|check| TransactWriteItem::builder().condition_check(check).build())
            }
        };
        built.map_err(|error| {
            DrError::new(ErrorName::Internal, "building a write of the state table").with_source(error)
        })
    }
}

/// A condition as DynamoDB spells it.
struct Condition {
    expression: &'static str,
    attribute: &'static str,
    values: Option<HashMap<String, AttributeValue>>,
}

impl Condition {
    fn of(expect: Expect) -> Self {
        match expect {
            Expect::Absent => Self { expression: "attribute_not_exists(#c)", attribute: KEY, values: None },
            Expect::Version(version) => Self {
                expression: "#c = :version",
                attribute: "version",
                values: Some(HashMap::from([(
                    ":version".to_owned(),
                    AttributeValue::N(version.to_string()),
                )])),
            },
        }
    }
}

fn encode_item(item: &Item) -> Result<HashMap<String, AttributeValue>> {
    match item {
        Item::Operation(operation) => encode_fields(operation),
        Item::Lock(lock) => encode_fields(lock),
        Item::Breaker(breaker) => encode_fields(breaker),
        Item::Stop(stop) => encode_fields(stop),
    }
}

fn encode_fields<T: Serialize>(item: &T) -> Result<HashMap<String, AttributeValue>> {
    serde_dynamo::to_item(item).map_err(|error| {
        DrError::new(ErrorName::Internal, "encoding an item of the state table").with_source(error)
    })
}
