use event_core::{RecordedEvent, event_handler};

trait Analyzer: Send + Sync {}

#[event_handler]
impl dyn Analyzer {
    #[on("github.push")]
    async fn handle(&self, _event: &RecordedEvent) {}
}

fn main() {}
