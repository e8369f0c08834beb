//! The contract of parallel delivery, as tests: what a store keeps for handlers whose events need no
//! order, and how services use that. Written once, so that each store runs the same suite with one
//! macro call.
//!
//! Each rule is one function, whose first sentence is the rule; [`parallel_contract_tests!`] makes a
//! test of each. It takes the same harness as the
//! [contract of stores](crate::testing::store_contract), which a store should keep first.
//!
//! | module | its rules |
//! |---|---|
//! | [`parallel_groups`] | who gets an entry, who may claim it, and what is stored when it is finished |
//! | [`parallel_delivery`] | services: once by one instance, crashes, stops, failures, load |
//!
//! ```
//! # use event_core::testing::store_contract::StoreHarness;
//! # use event_core::{Category, Limits, MemoryStore, Position};
//! # struct Memory;
//! # impl StoreHarness for Memory {
//! #     type Store = MemoryStore;
//! #     async fn store(&self, limits: Limits) -> MemoryStore {
//! #         MemoryStore::new().with_limits(limits)
//! #     }
//! #     async fn partitioned(&self, category: &Category, count: u32) -> MemoryStore {
//! #         MemoryStore::new().partitions(category.clone(), count)
//! #     }
//! #     async fn append_foreign(
//! #         &self,
//! #         store: &MemoryStore,
//! #         category: &Category,
//! #         fields: &[(&str, &str)],
//! #     ) -> Position {
//! #         store.append_foreign(category, fields)
//! #     }
//! # }
//! event_core::parallel_contract_tests!(Memory);
//! # fn main() {}
//! ```
//!
//! [`parallel_contract_tests!`]: crate::parallel_contract_tests

// A contract suite is test code: a broken rule is reported by a panic that names it.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod steps;

pub mod parallel_groups;

pub mod parallel_delivery;

/// Makes a test of every rule of the [contract of parallel
/// delivery](crate::testing::parallel_contract).
///
/// It takes an expression for the [`StoreHarness`](crate::testing::store_contract::StoreHarness),
/// which each test evaluates anew and which may `.await`.
///
/// The crate that calls it needs `tokio` with the features `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! parallel_contract_tests {
    ($harness:expr $(,)?) => {
        $crate::store_contract_tests! { @rules parallel_contract, $harness;
            parallel_groups {
                each_entry_is_given_to_one_consumer
                a_group_begins_at_the_beginning_or_now
                a_group_begins_after_a_position
                each_handler_gets_everything
                a_take_may_be_dropped
                what_is_pending_is_taken_back
                what_is_idle_is_claimed
                what_is_kept_alive_is_not_claimed
                what_is_let_go_is_claimed_at_once
                a_finish_stores_everything_once
                a_consumer_that_comes_back_late_stores_nothing
                what_is_done_is_so_whoever_has_claimed_it
                a_refused_emit_finishes_nothing
                a_consumer_with_pending_entries_stays
                a_handler_tells_how_far_it_is_behind
                a_forgotten_group_gets_everything_anew
                a_group_that_is_moved_goes_on_from_there
            }
            parallel_delivery {
                each_event_is_handled_once_by_one_of_three_instances
                handlers_do_not_wait_for_each_other
                events_of_a_vanished_instance_are_handled_by_others
                a_slow_handler_keeps_its_event
                emits_are_stored_once_though_two_have_handled_the_event
                a_failing_event_is_retried_and_parked
                a_dead_letter_is_redriven
                an_exhausted_event_may_be_left_out
                an_exhausted_event_may_stop_the_group
                a_refused_emit_is_a_failure
                a_stop_finishes_what_runs_and_leaves_the_rest_at_once
                no_more_handlers_run_at_once_than_may
                dispatch_waits_for_parallel_handlers
                events_flow_between_ordered_and_parallel_handlers
                an_undecodable_entry_is_a_dead_letter_once
                five_thousand_events_through_three_instances
            }
        }
    };
}

#[cfg(test)]
mod tests {
    /// The macro cannot find the rules by itself, so one may be forgotten.
    #[test]
    fn the_macro_names_every_rule() {
        let (_, list) = include_str!("parallel_contract.rs")
            .split_once("@rules parallel_contract, $harness;\n")
            .unwrap();
        let modules = [
            (
                "parallel_groups",
                include_str!("parallel_contract/parallel_groups.rs"),
            ),
            (
                "parallel_delivery",
                include_str!("parallel_contract/parallel_delivery.rs"),
            ),
        ];
        crate::testing::rules::assert_all_are_listed(list, &modules);
    }
}
