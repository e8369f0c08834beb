use event_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[serde(tag = "type", content = "data")]
enum Tagged {
    #[event("project.opened")]
    Opened,
}

#[derive(Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase", untagged)]
enum Untagged {
    #[event("project.opened")]
    Opened { by: String },
}

#[derive(Clone, Serialize, Deserialize, Event)]
#[serde(from = "String")]
#[serde(into = "String")]
enum Converted {
    #[event("project.opened")]
    Opened(String),
}

#[derive(Clone, Serialize, Deserialize, Event)]
#[serde(try_from = "Converted")]
enum TriedToConvert {
    #[event("project.opened")]
    Opened,
}

impl From<Converted> for TriedToConvert {
    fn from(_: Converted) -> Self {
        TriedToConvert::Opened
    }
}

impl From<String> for Converted {
    fn from(by: String) -> Self {
        Converted::Opened(by)
    }
}

impl From<Converted> for String {
    fn from(Converted::Opened(by): Converted) -> Self {
        by
    }
}

fn main() {}
