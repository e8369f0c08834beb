//! What `#[derive(Event)]` and `#[event_handler]` say of each mistake: one folder for each.

use std::path::Path;

#[test]
fn every_mistake_is_explained() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/accepted/*.rs");
    for folder in Path::new("tests/ui").read_dir().unwrap() {
        let folder = folder.unwrap();
        if folder.file_name() != "accepted" {
            cases.compile_fail(folder.path().join("*.rs"));
        }
    }
}
