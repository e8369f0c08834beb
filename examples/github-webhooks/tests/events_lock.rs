//! The events are as `events.lock` has them.

use github_webhooks as _;

#[test]
fn no_event_has_changed_its_shape_without_a_new_version() {
    event_core::assert_events_locked!();
}
