use event_core::{Event, event_handler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event("ai.response.chunk", realtime)]
struct ResponseChunk {}

#[event_handler(on = "ai.response.chunk")]
async fn exact(_event: ResponseChunk) {}

#[event_handler(on = "ai.*")]
async fn pattern(_event: ResponseChunk) {}

fn main() {}
