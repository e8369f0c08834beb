use event_core::{RecordedEvent, event_handler};

#[event_handler(on = "github.push", retry(base = "2s", max_delay = "1s"))]
async fn both(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(base = "1m"))]
async fn base(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(max_delay = "50ms"))]
async fn max_delay(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(base = "soon", max_delay = "50ms"))]
async fn not_compared(_: &RecordedEvent) {}

fn main() {}
