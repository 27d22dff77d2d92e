//! Faults to order: the n-th call of an action fails, or loses its answer, or takes a bad turn.

use serde::{Deserialize, Serialize};

/// What a test orders.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Order {
    /// The action's name.
    pub(super) action: String,
    /// Only calls in this Region; any by default.
    #[serde(default)]
    pub(super) region: Option<String>,
    /// The first call to meet it, counted from 1 and from the order on.
    #[serde(default = "one")]
    pub(super) nth: u64,
    /// How many calls in a row meet it.
    #[serde(default = "one")]
    pub(super) count: u64,
    pub(super) effect: Effect,
}

fn one() -> u64 {
    1
}

/// What happens to the call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Effect {
    /// Nothing is done and this error is the answer.
    Error {
        /// Wire code.
        code: String,
        /// Its text.
        #[serde(default)]
        message: String,
        /// HTTP status.
        #[serde(default = "bad_request")]
        status: u16,
    },
    /// It is done, and the connection is closed without an answer.
    LoseAnswer(bool),
    /// It is accepted and ends badly.
    Outcome(Outcome),
    /// It is done after so many milliseconds.
    DelayMs(u64),
}

fn bad_request() -> u16 {
    400
}

/// How an accepted operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// A copy goes to `failed` half way.
    CopyFails,
    /// What is created, restored, started, rebooted or failed over ends in `incompatible-network`, without a server.
    IncompatibleNetwork,
    /// What is created, restored, started, rebooted or failed over keeps its passing status, without a server.
    NeverAvailable,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Standing {
    id: u64,
    seen: u64,
    #[serde(flatten)]
    order: Order,
}

/// All orders that stand.
#[derive(Debug, Default)]
pub(super) struct Faults {
    last_id: u64,
    standing: Vec<Standing>,
}

impl Faults {
    /// Takes an order and returns its number.
    pub(super) fn add(&mut self, order: Order) -> u64 {
        self.last_id += 1;
        self.standing.push(Standing { id: self.last_id, seen: 0, order });
        self.last_id
    }

    pub(super) fn clear(&mut self) {
        self.standing.clear();
    }

    pub(super) fn standing(&self) -> &[Standing] {
        &self.standing
    }

    /// Counts a call and returns what happens to it. An order that has done its work is dropped.
    pub(super) fn meet(&mut self, action: &str, region: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.standing.retain_mut(|standing| {
            let order = &standing.order;
            if order.action != action || order.region.as_deref().is_some_and(|wanted| wanted != region) {
                return true;
            }
            standing.seen += 1;
            if standing.seen >= order.nth {
                effects.push(order.effect.clone());
            }
            standing.seen + 1 < order.nth + order.count
        });
        effects
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn order(json: &str) -> Order {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_order_meets_the_calls_from_nth_for_count() {
        let mut faults = Faults::default();
        faults.add(order(r#"{"action":"A","nth":2,"count":2,"effect":{"loseAnswer":true}}"#));
        let met: Vec<usize> = (0..5).map(|_| faults.meet("A", "r").len()).collect();
        assert_eq!(met, [0, 1, 1, 0, 0]);
        assert!(faults.standing().is_empty());
    }

    #[test]
    fn other_actions_and_other_regions_do_not_count() {
        let mut faults = Faults::default();
        faults.add(order(r#"{"action":"A","region":"r","effect":{"delayMs":1}}"#));
        assert!(faults.meet("B", "r").is_empty());
        assert!(faults.meet("A", "s").is_empty());
        assert_eq!(faults.meet("A", "r").len(), 1);
        assert!(faults.meet("A", "r").is_empty());
    }

    #[test]
    fn unknown_effects_and_fields_are_refused() {
        for wrong in [
            r#"{"action":"A","effect":{"explode":true}}"#,
            r#"{"action":"A","times":3,"effect":{"loseAnswer":true}}"#,
            r#"{"action":"A","effect":{"outcome":"sometimes"}}"#,
        ] {
            assert!(serde_json::from_str::<Order>(wrong).is_err(), "{wrong}");
        }
    }
}
