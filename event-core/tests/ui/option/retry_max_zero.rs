use event_core::{RecordedEvent, event_handler};

#[event_handler(on = "github.push", retry(max = 0))]
async fn handle(_: &RecordedEvent) {}

fn main() {}
