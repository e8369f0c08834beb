//! The contract of stores, as tests: what every store must do, written once, so that each store
//! runs the same suite with one macro call.
//!
//! Each rule is one function, whose first sentence is the rule; [`store_contract_tests!`] makes a
//! test of each.
//!
//! | module | its rules |
//! |---|---|
//! | [`append`] | expected versions, aggregates apart, all or nothing, writers that race |
//! | [`repetition`] | an append that is sent again stores nothing twice |
//! | [`limits`] | what is refused before anything is written |
//! | [`round_trip`] | what is read is what was written |
//! | [`read`] | histories: bounds, order, reads beside writers |
//! | [`feed`] | feeds: order, positions, bounds |
//! | [`foreign`] | entries that other programs wrote |
//! | [`follow`] | followers: old, then new, nothing twice and nothing left out |
//! | [`partitions`] | feeds of several parts |
//! | [`groups`] | who is there, who owns a partition, where a group begins |
//! | [`resets`] | a group that begins anew, or goes on from another place |
//! | [`commits`] | what an owner has done: whole or not at all, and once |
//! | [`group_reader`] | several partitions at once, and what changes in the group |
//! | [`dead_letters`] | listed, looked at, redriven, discarded |
//! | [`realtime`] | events that are sent and not kept |
//! | [`repository`] | loads and commands on top of the store |
//! | [`receipts`] | a command that is sent again is done once |
//! | [`restoring`] | what was recorded is stored where it lay |
//! | [`snapshots`] | states that are kept, and histories that have the last word |
//! | [`compaction`] | histories whose beginning is dropped behind a snapshot |
//! | [`trimming`] | feeds whose beginning goes, and who needs it |
//! | [`repair`] | histories and feeds compared, made anew, and entries adopted |
//! | [`projections`] | writes with their checkpoint, versions, and who fills them |
//! | [`projecting`] | projections that services fill: each event once |
//!
//! The suite waits for what must happen and never sleeps: a rule that is broken fails by what it
//! finds, or because nothing has come for 30 seconds.
//!
//! ```
//! use event_core::testing::store_contract::StoreHarness;
//! use event_core::{Category, Limits, MemoryStore, Position};
//!
//! struct Memory;
//!
//! impl StoreHarness for Memory {
//!     type Store = MemoryStore;
//!
//!     async fn store(&self, limits: Limits) -> MemoryStore {
//!         MemoryStore::new().with_limits(limits)
//!     }
//!
//!     async fn partitioned(&self, category: &Category, count: u32) -> MemoryStore {
//!         MemoryStore::new().partitions(category.clone(), count)
//!     }
//!
//!     async fn append_foreign(
//!         &self,
//!         store: &MemoryStore,
//!         category: &Category,
//!         fields: &[(&str, &str)],
//!     ) -> Position {
//!         store.append_foreign(category, fields)
//!     }
//! }
//!
//! event_core::store_contract_tests!(Memory);
//! # fn main() {}
//! ```
//!
//! [`store_contract_tests!`]: crate::store_contract_tests

// A contract suite is test code: a broken rule is reported by a panic that names it.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

pub(super) mod bank;
pub(super) mod steps;

pub mod append;
pub mod repetition;

pub mod limits;

pub mod round_trip;

pub mod read;

pub mod feed;
pub mod foreign;

pub mod follow;

pub mod partitions;

pub mod groups;

pub mod resets;

pub mod commits;

pub mod group_reader;

pub mod dead_letters;

pub mod realtime;

pub mod repository;

pub mod receipts;
pub mod restoring;
pub mod snapshots;

pub mod compaction;
pub mod projections;
pub mod repair;
pub mod trimming;

pub mod projecting;

use std::time::Duration;

use crate::event::Category;
use crate::recorded::Position;
use crate::store::{Backend, Limits};

/// Gives the suite its stores. It lives as long as one test, so it may hold a server that ends with
/// it.
pub trait StoreHarness: Send + Sync + 'static {
    /// The store under test.
    type Store: Backend + Clone;

    /// A fresh and empty store with these limits, that shares nothing with any other.
    fn store(&self, limits: Limits) -> impl Future<Output = Self::Store> + Send;

    /// Another client of what `store` holds, as another process would have it. A store that lives
    /// in one process alone keeps the default: a clone.
    fn other_client(&self, store: &Self::Store) -> impl Future<Output = Self::Store> + Send {
        let clone = store.clone();
        async { clone }
    }

    /// A fresh and empty store in which the feed of `category` has `count` partitions.
    fn partitioned(
        &self,
        category: &Category,
        count: u32,
    ) -> impl Future<Output = Self::Store> + Send;

    /// By how much the rules of many events, rounds or groups have fewer of them. A store that
    /// answers over a network may say more than 1, so that they end in time.
    const LOAD_DIVISOR: usize = 1;

    /// Adds an entry to a feed as a program of another kind would: these fields in this order, not
    /// checked and not completed. Says where it lies.
    fn append_foreign(
        &self,
        store: &Self::Store,
        category: &Category,
        fields: &[(&str, &str)],
    ) -> impl Future<Output = Position> + Send;
}

/// How long a rule may take.
const LONGEST_RULE: Duration = Duration::from_secs(120);

/// Runs one rule, and fails it where it does not come to an end.
#[doc(hidden)]
pub async fn run_rule(rule: impl Future<Output = ()>) {
    if tokio::time::timeout(LONGEST_RULE, rule).await.is_err() {
        panic!(
            "the rule has not come to an end in {LONGEST_RULE:?}: the store has stopped answering"
        );
    }
}

/// Makes a test of every rule of the [contract of stores](crate::testing::store_contract).
///
/// It takes an expression for the [`StoreHarness`](crate::testing::store_contract::StoreHarness),
/// which each test evaluates anew and which may `.await`. The tests lie in one module for each part
/// of the contract, so they are called `append::any_is_accepted_at_0_1_and_3_events` and so on.
///
/// The crate that calls it needs `tokio` with the features `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! store_contract_tests {
    ($harness:expr $(,)?) => {
        $crate::store_contract_tests! { @rules store_contract, $harness;
            append {
                any_is_accepted_at_0_1_and_3_events
                any_is_accepted_three_times
                no_stream_is_accepted_once
                exists_is_refused_on_a_missing_aggregate
                exact_is_refused_on_a_missing_aggregate
                exact_0_is_accepted_on_a_missing_aggregate
                after_3_events_only_exact_3_is_accepted
                an_append_says_where_its_events_lie
                one_id_under_two_types_is_two_aggregates
                one_id_in_two_categories_is_two_aggregates
                an_id_may_be_any_text
                events_of_a_feed_belong_to_no_aggregate
                ten_events_of_one_append_are_read_two_by_two
                an_append_of_several_is_all_or_nothing
                of_ten_writers_at_one_version_one_wins
                of_ten_writers_of_a_new_aggregate_one_wins
                writers_at_any_version_lose_nothing
                appends_of_1000_events_do_not_interleave
                another_client_goes_on_where_one_stopped
            }
            repetition {
                an_exact_append_sent_again_is_stored_once
                an_exact_append_is_found_behind_newer_events
                a_no_stream_append_sent_again_is_stored_once
                an_append_to_any_version_sent_again_is_stored_once
                an_append_to_an_existing_aggregate_sent_again_is_stored_once
                an_append_to_a_feed_sent_again_is_stored_once
                an_append_sent_ten_times_at_once_is_stored_once
                an_append_is_recognised_by_another_client
                what_was_stored_first_stays
                a_partly_repeated_append_to_any_version_stores_the_rest
                a_partly_repeated_append_to_a_feed_stores_the_rest
                a_partly_repeated_exact_append_is_a_conflict
                another_id_at_an_old_version_is_a_conflict
                an_id_is_one_event_in_each_category
                an_id_of_another_place_is_refused
                as_many_ids_are_remembered_as_the_limit_says
                a_refused_append_leaves_no_trace_of_its_ids
            }
            limits {
                an_append_of_nothing_is_refused
                an_event_of_another_category_keeps_all_out
                a_realtime_event_keeps_all_out
                an_id_given_twice_keeps_all_out
                metadata_that_would_not_survive_keeps_all_out
                an_oversized_payload_keeps_all_out
                oversized_metadata_keeps_all_out
                too_many_events_are_refused
                what_is_just_within_the_limits_is_stored
            }
            round_trip {
                metadata_survives
                metadata_of_a_feed_event_survives
                plain_metadata_survives
                times_are_kept_to_the_microsecond
                payloads_survive_byte_for_byte
                a_large_payload_survives
                typed_events_survive
                history_and_feed_tell_the_same
            }
            read {
                an_unknown_aggregate_is_not_found
                an_aggregate_is_unknown_beside_events_of_others
                reading_begins_at_a_version
                reading_ends_at_a_version
                equal_bounds_read_one_event
                crossed_bounds_read_nothing
                bounds_beyond_the_history_read_nothing
                limit_0_reads_nothing
                a_limit_bounds_the_number
                backwards_is_the_newest_first
                backwards_keeps_to_bounds_and_limit
                last_is_the_newest_alone
                a_replay_ends_where_it_is_broken_off
                a_read_beside_writers_sees_a_prefix
                what_the_feed_shows_the_history_has
            }
            feed {
                an_unknown_feed_is_empty
                a_feed_has_the_order_of_appends
                positions_grow
                head_is_the_newest_position
                reading_goes_on_after_a_position
                a_feed_limit_bounds_the_number
                feed_limit_0_reads_nothing
                a_feed_is_read_back_from_a_position
                a_feed_holds_all_aggregates_of_its_category
                a_feed_holds_no_other_category
                concurrent_appends_keep_each_aggregate_in_order
                a_feed_read_beside_writers_sees_a_prefix
            }
            foreign {
                type_and_payload_are_enough
                a_type_may_lack_its_category
                unknown_fields_are_passed_over
                an_aggregate_without_metadata_is_read
                foreign_metadata_is_kept
                a_foreign_id_that_is_no_uuid_is_an_identity
                a_foreign_entry_is_the_same_at_every_reading
                an_entry_that_is_no_event_stops_no_reader
                appends_go_on_behind_a_foreign_entry
            }
            follow {
                a_follower_waits_for_the_first_entry
                a_follower_gets_old_then_new
                a_follower_begins_after_its_position
                a_batch_has_at_least_one_and_at_most_limit_entries
                there_is_no_gap_and_nothing_twice_at_the_seam
                a_follower_beside_concurrent_appends_gets_each_once
                a_wait_may_be_dropped
                a_follower_may_be_dropped_and_reopened
                two_followers_each_get_everything
                a_follower_sees_what_another_client_appends
                another_category_wakes_nobody
                a_follower_goes_past_what_is_no_event
            }
            partitions {
                the_number_of_partitions_is_told
                what_belongs_together_lies_in_one_partition
                an_append_to_several_partitions_is_refused
                aggregates_know_nothing_of_partitions
                each_partition_is_owned_by_itself
            }
            groups {
                instances_are_told_of_each_other
                an_instance_that_is_silent_is_forgotten
                where_a_group_begins_is_decided_once
                a_group_begins_after_a_position
                an_owned_partition_is_refused_to_others
                a_released_partition_is_taken_at_once
                an_ended_lease_is_taken
                an_epoch_grows_at_each_acquisition
                of_ten_that_acquire_at_once_one_wins
                an_old_epoch_can_write_nothing
            }
            resets {
                a_forgotten_group_is_new
                a_group_that_is_moved_goes_on_from_there
                a_group_that_is_unknown_may_be_reset
                an_owned_partition_is_not_reset
                an_owner_from_before_a_reset_can_write_nothing
                a_group_with_instances_is_not_reset
                owning_does_not_open_a_group
            }
            commits {
                a_commit_stores_everything
                progress_survives
                a_commit_sent_again_writes_nothing
                a_refused_emit_writes_nothing_and_is_named
                emits_go_to_feeds_and_aggregates
                commits_beside_appends_lose_nothing
            }
            group_reader {
                several_partitions_are_read_at_once
                a_reader_keeps_to_what_is_wanted
                there_is_no_gap_and_nothing_twice_at_the_seam_of_a_reader
                a_reader_may_give_up_its_waits
                another_partition_is_read_as_soon_as_it_is_wanted
                a_reader_is_told_of_changes
                a_reader_is_told_what_has_changed_meanwhile
                two_readers_each_get_what_they_want
            }
            dead_letters {
                a_dead_letter_survives
                dead_letters_are_listed_in_order_page_by_page
                no_dead_letters_are_no_error
                dead_letters_are_of_one_group_and_partition
                an_inspected_dead_letter_has_its_raw_entry
                a_redrive_marks_those_chosen
                one_is_redriven_only_where_it_is_the_first
                a_discard_removes_those_chosen
                what_was_discarded_does_not_come_back
                a_dead_letter_is_there_once
                many_dead_letters_are_no_matter
                what_follows_none_any_more_is_handled_again
            }
            realtime {
                an_exact_pattern_hears_its_type_alone
                a_pattern_hears_every_type_it_matches
                a_star_hears_every_category
                several_patterns_hear_what_any_of_them_matches
                overlapping_patterns_hear_an_event_once
                events_of_a_type_arrive_in_order
                a_realtime_event_survives
                every_subscriber_hears_everything
                another_client_hears_what_one_sends
                what_was_sent_before_is_not_heard
                what_did_not_fit_is_counted
                realtime_events_are_not_stored
                nothing_is_heard_after_drop
            }
            repository {
                loading_an_unknown_aggregate_is_not_found
                loading_replays_every_event
                loading_at_a_version_stops_there
                loading_at_a_time_stops_there
                a_command_appends_what_it_leads_to
                a_command_that_leads_to_nothing_appends_nothing
                a_refused_command_appends_nothing
                of_64_commands_at_once_each_counts
            }
            receipts {
                a_command_sent_again_gives_its_first_outcome
                what_leads_to_nothing_leaves_no_receipt
                a_command_sent_many_times_at_once_is_done_once
                an_append_with_a_receipt_is_stored_once
                a_receipt_is_kept_for_some_time
                a_receipt_that_cannot_be_is_refused
                an_outcome_is_told_behind_a_compaction
            }
            restoring {
                a_restored_recording_is_recorded_the_same
                restored_events_lie_in_their_partitions
                later_positions_refuse_a_restore
                a_restore_sent_again_is_stored_once
                a_history_is_restored_without_holes
                appends_go_on_behind_what_was_restored
                a_restore_goes_on_where_it_was_broken_off
            }
            snapshots {
                of_three_snapshots_the_newest_is_kept
                a_snapshot_survives
                a_deleted_snapshot_is_gone
                a_load_goes_on_from_a_snapshot
                an_unusable_snapshot_is_passed_over
                a_snapshot_is_written_when_it_is_due
                a_snapshot_and_its_tail_equal_the_history
                a_cached_state_takes_in_what_others_append
                a_cached_state_does_not_decide_alone
                commands_on_cached_states_each_count
                a_history_is_read_in_pages
                changes_are_told_by_states_and_events
                a_conflict_that_does_not_end_is_an_error
            }
            compaction {
                the_version_stays_what_it_is
                whoever_reads_what_was_dropped_is_told
                a_long_compacted_history_is_read_whole
                what_is_no_snapshot_drops_nothing
                a_compacted_aggregate_is_loaded_by_its_snapshot
                a_repetition_is_recognised_in_a_compacted_history
                commands_beside_compactions_each_count
                a_compacted_history_leads_to_the_same_state
                what_may_be_sent_again_is_not_dropped
                an_older_program_does_not_replace_the_state_behind_a_compaction
            }
            trimming {
                without_a_limit_nothing_goes
                the_newest_entries_stay
                what_is_too_old_goes
                what_takes_too_much_goes
                each_limit_counts
                all_partitions_are_trimmed
                what_a_group_has_not_finished_stays
                what_a_projection_has_not_taken_in_stays
                what_is_pending_in_parallel_stays
                a_forgotten_group_keeps_nothing_back
                a_dead_letter_outlives_its_entry
                what_was_emitted_outlives_what_it_came_from
                whoever_reads_too_early_is_told
                a_new_group_is_told
                a_new_group_is_told_where_nothing_is_left
                a_group_opened_beside_a_trim_has_everything_or_is_told
                a_repetition_is_recognised_behind_a_trim
                a_group_loses_nothing_to_a_trim_beside_it
            }
            repair {
                what_is_appended_is_sound
                writers_beside_it_are_no_mistake
                what_is_gone_on_purpose_is_told
                what_is_wrong_is_found
                foreign_events_are_adopted_once
                what_was_adopted_is_not_out_of_order
                what_was_adopted_stays_adopted
                an_adoption_that_is_broken_off_goes_on
                adopting_beside_writers_loses_nothing
                a_history_is_made_anew_from_the_feed
                what_is_not_whole_is_left_as_it_is
                a_history_made_anew_beside_writers_loses_nothing
                what_cannot_be_read_is_found
                what_is_trimmed_away_meanwhile_is_not_missing
                a_step_that_is_sent_again_is_done_once
            }
            projections {
                what_is_written_to_a_projection_is_read
                keys_of_a_projection_are_read_in_pages
                a_step_from_another_checkpoint_is_refused
                of_many_writers_each_step_counts_once
                what_is_no_count_is_refused_whole
                a_version_that_is_behind_is_not_switched_to
                versions_of_a_projection_are_switched_and_dropped
                the_last_version_of_a_projection_may_be_dropped
                one_instance_fills_a_version
                every_version_says_how_far_it_is
                entries_after_a_position_are_counted
            }
            projecting {
                a_projection_has_each_event_once
                own_writes_are_waited_for
                handlers_are_waited_for
                a_projection_stops_before_what_is_no_event
                a_failing_method_is_tried_again
                an_inline_projection_has_what_is_appended
                an_inline_projection_has_each_event_once
                an_append_says_that_it_is_stored_where_a_projection_stops
                a_rebuild_goes_on_and_switches
                a_sink_has_each_event_once
                a_sink_is_waited_for_whoever_filled_it
                appends_do_not_hang_on_what_nobody_reads
                partitions_that_there_are_not_are_not_waited_for
            }
        }
    };
    (@rules $suite:ident, $harness:expr; $($module:ident { $($rule:ident)* })*) => {
        $(
            mod $module {
                // The harness may be named by an import of the module around this one.
                #[allow(unused_imports)]
                use super::*;

                $(
                    #[::tokio::test(flavor = "multi_thread")]
                    async fn $rule() {
                        let harness = $harness;
                        $crate::testing::store_contract::run_rule(
                            $crate::testing::$suite::$module::$rule(&harness),
                        )
                        .await;
                    }
                )*
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    /// The macro cannot find the rules by itself, so one may be forgotten.
    #[test]
    fn the_macro_names_every_rule() {
        let (list, _) = include_str!("store_contract.rs")
            .split_once("(@rules $suite:ident, $harness:expr; $(")
            .unwrap();
        let modules = [
            ("append", include_str!("store_contract/append.rs")),
            ("repetition", include_str!("store_contract/repetition.rs")),
            ("limits", include_str!("store_contract/limits.rs")),
            ("round_trip", include_str!("store_contract/round_trip.rs")),
            ("read", include_str!("store_contract/read.rs")),
            ("feed", include_str!("store_contract/feed.rs")),
            ("foreign", include_str!("store_contract/foreign.rs")),
            ("follow", include_str!("store_contract/follow.rs")),
            ("partitions", include_str!("store_contract/partitions.rs")),
            ("groups", include_str!("store_contract/groups.rs")),
            ("resets", include_str!("store_contract/resets.rs")),
            ("commits", include_str!("store_contract/commits.rs")),
            (
                "group_reader",
                include_str!("store_contract/group_reader.rs"),
            ),
            (
                "dead_letters",
                include_str!("store_contract/dead_letters.rs"),
            ),
            ("realtime", include_str!("store_contract/realtime.rs")),
            ("repository", include_str!("store_contract/repository.rs")),
            ("compaction", include_str!("store_contract/compaction.rs")),
            ("trimming", include_str!("store_contract/trimming.rs")),
            ("repair", include_str!("store_contract/repair.rs")),
            ("projections", include_str!("store_contract/projections.rs")),
            ("projecting", include_str!("store_contract/projecting.rs")),
            ("restoring", include_str!("store_contract/restoring.rs")),
        ];
        crate::testing::rules::assert_all_are_listed(list, &modules);
    }
}
