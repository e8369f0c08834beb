//! A store on a cluster keeps the contracts.
//!
//! These rules are left out, which emit to feeds of other slots:
//!
//! - `partitions::each_partition_is_owned_by_itself`
//! - `commits::a_commit_stores_everything`
//! - `commits::a_commit_sent_again_writes_nothing`
//! - `commits::a_refused_emit_writes_nothing_and_is_named`
//! - `commits::emits_go_to_feeds_and_aggregates`
//! - `commits::commits_beside_appends_lose_nothing`
//! - `parallel_groups::a_finish_stores_everything_once`
//! - `parallel_groups::a_consumer_that_comes_back_late_stores_nothing`
//! - `parallel_delivery::emits_are_stored_once_though_two_have_handled_the_event`
//! - `parallel_delivery::a_refused_emit_is_a_failure`
//! - `parallel_delivery::dispatch_waits_for_parallel_handlers`
//! - `parallel_delivery::events_flow_between_ordered_and_parallel_handlers`
//! - `parallel_delivery::five_thousand_events_through_three_instances`
//! - `instances::emits_are_stored_once_though_owners_vanish`
//! - `instances::partitions_of_a_vanished_instance_are_shared`
//! - `failures::an_emit_that_is_refused_is_a_failed_attempt`
//! - `parked::a_redriven_event_emits_once`
//! - `parked::a_redriven_event_whose_emits_are_refused_stays`

use crate::support::Cluster;

event_core::store_contract_tests! { @rules store_contract, Cluster::take();
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
    }
    groups {
        instances_are_told_of_each_other
        an_instance_that_is_silent_is_forgotten
        where_a_group_begins_is_decided_once
        an_owned_partition_is_refused_to_others
        a_released_partition_is_taken_at_once
        an_ended_lease_is_taken
        an_epoch_grows_at_each_acquisition
        of_ten_that_acquire_at_once_one_wins
        an_old_epoch_can_write_nothing
    }
    commits {
        progress_survives
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
}

mod parallel {
    use super::*;

    event_core::parallel_contract_tests! { @rules Cluster::take();
        parallel_groups {
            each_entry_is_given_to_one_consumer
            a_group_begins_at_the_beginning_or_now
            each_handler_gets_everything
            a_take_may_be_dropped
            what_is_pending_is_taken_back
            what_is_idle_is_claimed
            what_is_kept_alive_is_not_claimed
            what_is_let_go_is_claimed_at_once
            a_refused_emit_finishes_nothing
            a_consumer_with_pending_entries_stays
        }
        parallel_delivery {
            each_event_is_handled_once_by_one_of_three_instances
            handlers_do_not_wait_for_each_other
            events_of_a_vanished_instance_are_handled_by_others
            a_slow_handler_keeps_its_event
            a_failing_event_is_retried_and_parked
            a_dead_letter_is_redriven
            an_exhausted_event_may_be_left_out
            an_exhausted_event_may_stop_the_group
            a_stop_finishes_what_runs_and_leaves_the_rest_at_once
            no_more_handlers_run_at_once_than_may
            an_undecodable_entry_is_a_dead_letter_once
        }
    }
}

mod subscriptions {
    use super::*;

    event_core::store_contract_tests! { @rules subscription_contract, Cluster::take();
        delivery {
            a_new_group_begins_at_the_beginning
            a_group_that_starts_now_gets_what_comes_after
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
            instances_share_partitions_and_share_anew
            a_stop_at_any_moment_gives_everything_back
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
            a_discard_lets_the_key_flow
            an_undecodable_entry_is_a_dead_letter
            an_unreadable_payload_is_a_dead_letter
            a_full_store_of_dead_letters_stops_reading
            each_handler_has_its_own_dead_letters
            what_is_discarded_while_it_is_redriven_is_gone
        }
    }
}
