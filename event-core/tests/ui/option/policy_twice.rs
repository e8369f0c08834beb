use event_core::{RecordedEvent, event_handler};

#[event_handler(on = "github.push", timeout = "1s", retry(max = 1), timeout = "2s", retry(max = 2))]
async fn in_one(_: &RecordedEvent) {}

#[event_handler(on = "github.push", delivery = parallel)]
#[on("github.pull", delivery = parallel)]
async fn in_both(_: &RecordedEvent) {}

#[event_handler]
struct Repositories;

#[event_handler(on_exhausted = skip)]
impl Repositories {
    #[on("github.push", on_exhausted = park)]
    #[on("github.pull", on_exhausted = park)]
    async fn handle(&self, _: &RecordedEvent) {}
}

fn main() {}
