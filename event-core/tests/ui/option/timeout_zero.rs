use event_core::{RecordedEvent, event_handler};

#[event_handler(on = "github.push", timeout = "0s")]
async fn handle(_: &RecordedEvent) {}

fn main() {}
