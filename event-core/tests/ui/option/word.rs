use event_core::{RecordedEvent, event_handler};

#[event_handler(on = "github.push", on_exhausted = drop, delivery = unordered)]
async fn unknown(_: &RecordedEvent) {}

#[event_handler(on = "github.push", on_exhausted = "skip", delivery = "parallel")]
async fn quoted(_: &RecordedEvent) {}

#[event_handler(on = "github.push", on_exhausted = "drop", delivery = "")]
async fn quoted_unknown(_: &RecordedEvent) {}

#[event_handler(on = "github.push", on_exhausted, delivery)]
async fn nothing(_: &RecordedEvent) {}

#[event_handler(on = "github.push", on_exhausted(skip), delivery = Delivery::Parallel)]
async fn form(_: &RecordedEvent) {}

#[event_handler(on = "github.push", replay = yes)]
async fn replayed(_: &RecordedEvent) {}

#[event_handler(on = "github.push", replay)]
async fn replayed_somehow(_: &RecordedEvent) {}

fn main() {}
