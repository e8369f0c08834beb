use event_core::{RecordedEvent, event_handler};

#[event_handler(on = "github.push", retry(attempts = 3, delay = "1s"))]
async fn unknown(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(max = 3, base = "1s", max = 4, base = "2s"))]
async fn twice(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(max, base, max_delay(30)))]
async fn nothing(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(max = "3", base = 100))]
async fn type_of(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(max = -1))]
async fn negative(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(max = 3u64))]
async fn suffix(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(max = 4_294_967_296))]
async fn large(_: &RecordedEvent) {}

fn main() {}
