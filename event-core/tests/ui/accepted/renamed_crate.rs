//! The crate may be named by any path.

use serde::{Deserialize, Serialize};

mod my {
    pub use event_core as core_crate;
}

#[derive(Serialize, Deserialize, my::core_crate::Event)]
#[event("github.push", crate = my::core_crate)]
struct GithubPush {}

#[derive(Serialize, Deserialize, my::core_crate::Event)]
#[event(crate = crate::my::core_crate)]
enum ProjectEvent {
    #[event("project.opened")]
    Opened,
}

#[my::core_crate::event_handler(crate = my::core_crate)]
struct Repositories;

#[my::core_crate::event_handler(crate = self::my::core_crate, group = "agents")]
impl Repositories {
    #[on("github.push", retry(max = 2), delivery = parallel)]
    #[my::core_crate::emits("project.opened")]
    async fn handle(&self, _: GithubPush, _: &my::core_crate::Context) -> ProjectEvent {
        ProjectEvent::Opened
    }
}

mod inner {
    use super::my::core_crate as renamed;

    #[renamed::event_handler(on = "github.push", crate = renamed, timeout = "5s", on_exhausted = stop)]
    async fn handle(_: super::GithubPush) {}
}

fn main() {
    let names: Vec<_> = my::core_crate::HandlerRegistration::all()
        .iter()
        .map(|handler| handler.name().to_owned())
        .collect();
    assert_eq!(names, ["Repositories::handle", "handle"]);
}
