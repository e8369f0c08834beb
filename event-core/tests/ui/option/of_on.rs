use event_core::{RecordedEvent, event_handler};

#[event_handler]
struct Repositories;

#[event_handler]
impl Repositories {
    #[on("github.push", group = "agents", realtime, start = now)]
    async fn of_all(&self, _: &RecordedEvent) {}

    #[on("github.push", emits = "repository.analyzed")]
    async fn emits(&self, _: &RecordedEvent) {}

    #[on("github.push", timeot = "5s", retries(max = 3), retri)]
    async fn unknown(&self, _: &RecordedEvent) {}

    #[on(timeout = "5s", "github.push")]
    async fn first(&self, _: &RecordedEvent) {}

    #[on(timeout = "5s", retry(max = 3))]
    async fn no_type(&self, _: &RecordedEvent) {}

    #[on("github.push", retry(max = 0), timeout = "5 s", on_exhausted = drop)]
    async fn several(&self, _: &RecordedEvent) {}

    #[on("github.push", github, on = "github.pull")]
    async fn no_string(&self, _: &RecordedEvent) {}
}

fn main() {}
