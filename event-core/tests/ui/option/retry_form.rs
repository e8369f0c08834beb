use event_core::{RecordedEvent, event_handler};

#[event_handler(on = "github.push", retry)]
async fn alone(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry = 3)]
async fn number(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry = "often")]
async fn text(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry())]
async fn empty(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(3, "1s"))]
async fn unnamed(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(max = 3) = "1s")]
async fn more(_: &RecordedEvent) {}

fn main() {}
