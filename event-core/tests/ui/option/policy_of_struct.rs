use event_core::{RecordedEvent, event_handler};

#[event_handler(retry(max = 3), timeout = "5s", on_exhausted = skip, delivery = parallel)]
struct Repositories;

#[event_handler]
impl Repositories {
    #[on("github.push")]
    async fn handle(&self, _: &RecordedEvent) {}
}

fn main() {}
