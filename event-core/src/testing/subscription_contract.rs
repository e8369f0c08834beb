//! The contract of subscriptions, as tests: how services handle events on a store, written once, so
//! that each store runs the same suite with one macro call.
//!
//! Each rule is one function, whose first sentence is the rule; [`subscription_contract_tests!`]
//! makes a test of each. It takes the same harness as the
//! [contract of stores](crate::testing::store_contract), which a store should keep first.
//!
//! | module | its rules |
//! |---|---|
//! | [`delivery`] | where a group begins, what it gets; once, and in order |
//! | [`instances`] | how instances share partitions, come, go and vanish |
//! | [`load`] | many groups, categories and keys; what runs at once, and how fast |
//! | [`failures`] | handlers that fail, panic or never return |
//! | [`parked`] | dead letters: what becomes one, and what becomes of it |
//! | [`replays`] | the past once more, of which the group knows nothing |
//!
//! The rules wait for what must happen, and fail where it has not for 30 seconds.
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
//! event_core::subscription_contract_tests!(Memory);
//! # fn main() {}
//! ```
//!
//! [`subscription_contract_tests!`]: crate::subscription_contract_tests

// A contract suite is test code: a broken rule is reported by a panic that names it.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod orders;
mod steps;

pub mod delivery;

pub mod instances;

pub mod load;

pub mod failures;

pub mod parked;

pub mod replays;

/// Makes a test of every rule of the [contract of
/// subscriptions](crate::testing::subscription_contract).
///
/// It takes an expression for the [`StoreHarness`](crate::testing::store_contract::StoreHarness),
/// which each test evaluates anew and which may `.await`. The tests lie in one module for each part
/// of the contract, so they are called `failures::a_panic_is_a_failed_attempt` and so on.
///
/// The crate that calls it needs `tokio` with the features `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! subscription_contract_tests {
    ($harness:expr $(,)?) => {
        $crate::store_contract_tests! { @rules subscription_contract, $harness;
            delivery {
                a_new_group_begins_at_the_beginning
                a_group_that_starts_now_gets_what_comes_after
                a_group_that_starts_at_a_position_gets_what_lies_behind
                a_group_that_is_reset_begins_anew
                a_group_gets_old_then_new
                there_is_no_gap_and_nothing_twice_at_the_seam
                patterns_choose_among_old_and_new
                each_group_gets_everything
                nothing_is_handled_after_a_stop_and_the_next_run_goes_on
                a_stop_finishes_what_runs_and_begins_nothing
                ten_stops_in_the_midst_lose_nothing
            }
            instances {
                a_second_instance_gets_nothing_of_an_owned_partition
                another_instance_goes_on_where_one_has_stopped
                another_instance_goes_on_when_one_vanishes
                what_is_behind_an_open_event_is_not_handled_again
                what_was_not_finished_is_handled_again
                emits_are_stored_once_though_owners_vanish
                instances_share_partitions_and_share_anew
                partitions_of_a_vanished_instance_are_shared
                a_stop_at_any_moment_gives_everything_back
                an_instance_that_slept_through_a_reset_begins_as_its_start_says
            }
            load {
                fifty_groups_each_get_every_message
                one_group_gets_100_messages_of_20_categories
                keys_keep_their_order_under_concurrency
                a_slow_key_holds_back_nothing_but_itself
                no_more_handlers_run_at_once_than_may
                a_rate_limit_loses_nothing
                a_circuit_breaker_loses_nothing
            }
            failures {
                a_failing_event_is_retried_and_other_keys_flow
                after_100_failures_in_a_row_all_arrive
                a_panic_is_a_failed_attempt
                a_handler_that_never_returns_times_out
                only_the_handler_that_failed_is_called_again
                an_emit_that_is_refused_is_a_failed_attempt
                an_exhausted_event_may_be_left_out
                an_exhausted_event_may_stop_the_group
                a_fatal_error_stops_the_group
                a_rejected_event_is_a_dead_letter_at_once
                what_is_to_wait_is_not_tried_sooner
            }
            parked {
                after_the_last_attempt_an_event_is_a_dead_letter
                later_events_of_the_key_follow_and_others_flow
                the_next_owner_knows_what_is_parked
                a_redrive_keeps_the_order
                a_redrive_waits_for_an_owner
                a_redrive_that_fails_again_parks_the_key_again
                redrives_beside_arrivals_keep_the_order
                a_redriven_event_emits_once
                a_redriven_event_whose_emits_are_refused_stays
                a_discard_lets_the_key_flow
                a_discard_of_one_leaves_those_behind_it
                discards_beside_arrivals_leave_nothing_parked
                an_undecodable_entry_is_a_dead_letter
                an_unreadable_payload_is_a_dead_letter
                a_full_store_of_dead_letters_stops_reading
                each_handler_has_its_own_dead_letters
                what_is_discarded_while_it_is_redriven_is_gone
            }
            replays {
                a_replay_gives_the_past_and_touches_nothing
                a_replay_gives_what_is_wanted
                a_replay_that_is_not_allowed_is_refused
                a_replay_tells_what_has_failed
                a_stopped_replay_goes_on_from_its_report
                a_replay_passes_over_what_is_no_event
            }
        }
    };
}

#[cfg(test)]
mod tests {
    /// The macro cannot find the rules by itself, so one may be forgotten.
    #[test]
    fn the_macro_names_every_rule() {
        let (_, list) = include_str!("subscription_contract.rs")
            .split_once("@rules subscription_contract, $harness;\n")
            .unwrap();
        let modules = [
            (
                "delivery",
                include_str!("subscription_contract/delivery.rs"),
            ),
            (
                "instances",
                include_str!("subscription_contract/instances.rs"),
            ),
            ("load", include_str!("subscription_contract/load.rs")),
            (
                "failures",
                include_str!("subscription_contract/failures.rs"),
            ),
            ("parked", include_str!("subscription_contract/parked.rs")),
            ("replays", include_str!("subscription_contract/replays.rs")),
        ];
        crate::testing::rules::assert_all_are_listed(list, &modules);
    }
}
