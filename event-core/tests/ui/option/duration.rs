use event_core::{RecordedEvent, event_handler};

#[event_handler(on = "github.push", timeout = "5")]
async fn no_unit(_: &RecordedEvent) {}

#[event_handler(on = "github.push", timeout = "90 sec")]
async fn other_unit(_: &RecordedEvent) {}

#[event_handler(on = "github.push", timeout = "1.5m")]
async fn fraction(_: &RecordedEvent) {}

#[event_handler(on = "github.push", timeout = "soon")]
async fn word(_: &RecordedEvent) {}

#[event_handler(on = "github.push", timeout = "")]
async fn empty(_: &RecordedEvent) {}

#[event_handler(on = "github.push", timeout = 5s)]
async fn no_quotes(_: &RecordedEvent) {}

#[event_handler(on = "github.push", timeout = 5)]
async fn number(_: &RecordedEvent) {}

#[event_handler(on = "github.push", timeout = Duration::from_secs(5))]
async fn expression(_: &RecordedEvent) {}

#[event_handler(on = "github.push", timeout)]
async fn nothing(_: &RecordedEvent) {}

#[event_handler(on = "github.push", timeout("5s"))]
async fn parentheses(_: &RecordedEvent) {}

#[event_handler(on = "github.push", retry(base = "1 s", max_delay = "30 seconds"))]
async fn of_retry(_: &RecordedEvent) {}

fn main() {}
