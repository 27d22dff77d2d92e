//! The state table: reads items consistently, applies a [`Change`] whole or not at all.
//!
//! Decides nothing: what is written, and under which conditions, comes from `dr_core::changes`. There is no scan
//! in here. Indexes are eventually consistent and serve people, not decisions: only [`StateTable::list`] reads them.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
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

/// An index by type: which one holds an item depends on the attributes that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// Of items with a `status`: operations, breakers.
    Status,
    /// Of items with a `startedAt`: operations, locks.
    Time,
}

impl Index {
    const fn name(self) -> &'static str {
        match self {
            Self::Status => "TypeStatusIndex",
            Self::Time => "TypeTimeIndex",
        }
    }
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

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
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

    /// Every item of a type, by one of the indexes that serve people: eventually consistent, over all pages, for looking only.
    ///
    /// # Errors
    /// [`ErrorName::StateTableMissing`], [`ErrorName::MetadataDamaged`] for an item that is not what it should be,
    /// and the errors of AWS calls.
    pub async fn list<T: DeserializeOwned>(&self, item_type: &str, index: Index) -> Result<Vec<T>> {
        let query = self.client.query().index_name(index.name()).key_condition_expression("#t = :t");
        self.query(item_type, query).await?.into_iter().collect()
    }

    /// The same, of those that have a status. One that cannot be read, as of another version, keeps no other back: it is an
    /// error of its own.
    ///
    /// # Errors
    /// As [`Self::list`], but for what cannot be read.
    pub async fn list_with_status<T: DeserializeOwned>(
        &self,
        item_type: &str,
        status: &str,
    ) -> Result<Vec<Result<T>>> {
        let query = self
            .client
            .query()
            .index_name(Index::Status.name())
            .key_condition_expression("#t = :t AND #s = :s")
            .expression_attribute_names("#s", "status")
            .expression_attribute_values(":s", AttributeValue::S(status.to_owned()));
        self.query(item_type, query).await
    }

    async fn query<T: DeserializeOwned>(
        &self,
        item_type: &str,
        query: QueryFluentBuilder,
    ) -> Result<Vec<Result<T>>> {
        let what = format!("listing the items of type {item_type} of table {}", self.name);
        let call = Call::read("dynamodb:Query", what);
        let mut pages = query
            .table_name(&self.name)
            .expression_attribute_names("#t", "type")
            .expression_attribute_values(":t", AttributeValue::S(item_type.to_owned()))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = Box::pin(pages.next()).await {
            let page = page.map_err(|error| call.failure(error))?;
            for item in page.items.unwrap_or_default() {
                let key = item.get(KEY).and_then(|key| key.as_s().ok()).cloned().unwrap_or_default();
                found.push(self.decode(&key, item));
            }
        }
        Ok(found)
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

    /// Sets one attribute of an item, creating the item when there is none: without a condition, for what any writer may
    /// overwrite, and the same again changes nothing. `expires_at` is the item's TTL, in seconds since 1970.
    ///
    /// # Errors
    /// [`ErrorName::StateTableMissing`] and the errors of AWS calls.
    pub async fn remember<T: Serialize>(
        &self,
        key: &str,
        item_type: &str,
        attribute: &str,
        value: &T,
        expires_at: i64,
    ) -> Result<()> {
        let what = format!("remembering {attribute} of item {key} of table {}", self.name);
        let value = serde_dynamo::to_attribute_value(value)
            .map_err(|error| DrError::new(ErrorName::Internal, what.clone()).with_source(error))?;
        let request = self
            .client
            .update_item()
            .table_name(&self.name)
            .key(KEY, AttributeValue::S(key.to_owned()))
            .update_expression("SET #a = :a, #t = :t, #e = :e")
            .expression_attribute_names("#a", attribute)
            .expression_attribute_names("#t", "type")
            .expression_attribute_names("#e", "expiresAt")
            .expression_attribute_values(":a", value)
            .expression_attribute_values(":t", AttributeValue::S(item_type.to_owned()))
            .expression_attribute_values(":e", AttributeValue::N(expires_at.to_string()));
        match Box::pin(request.send()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Call::write("dynamodb:UpdateItem", what).failure(error)),
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
        Item::Health(health) => encode_fields(health),
        Item::Journal(journal) => encode_fields(journal),
        Item::Approval(pending) => encode_fields(pending),
        Item::RegionBlock(block) => encode_fields(block),
    }
}

fn encode_fields<T: Serialize>(item: &T) -> Result<HashMap<String, AttributeValue>> {
    serde_dynamo::to_item(item).map_err(|error| {
        DrError::new(ErrorName::Internal, "encoding an item of the state table").with_source(error)
    })
}
