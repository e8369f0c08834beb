use event_core::{RecordedEvent, event_handler};

#[event_handler(on = "ai.chunk", realtime, delivery = parallel, on_exhausted = park)]
async fn park(_: &RecordedEvent) {}

#[event_handler(on = "ai.chunk", realtime, delivery = ordered, on_exhausted = stop)]
async fn stop(_: &RecordedEvent) {}

#[event_handler]
struct Chunks;

#[event_handler(realtime)]
impl Chunks {
    #[on("ai.chunk", delivery = parallel, on_exhausted = park)]
    async fn handle(&self, _: &RecordedEvent) {}
}

#[event_handler(on = "ai.chunk", realtime, replay = allow)]
async fn replayed(_: &RecordedEvent) {}

fn main() {}
