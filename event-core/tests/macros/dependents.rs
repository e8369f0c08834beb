//! `#[event_handler]` on a struct.

use std::collections::HashMap;
use std::sync::Arc;

use event_core::{Dependent, event_handler};

#[event_handler]
struct Named {
    #[allow(dead_code)]
    names: Arc<HashMap<String, u32>>,
    #[cfg(any())]
    absent: NotThere,
    #[allow(dead_code)]
    r#type: u8,
}

#[event_handler]
struct Tuple(#[allow(dead_code)] Arc<str>, #[allow(dead_code)] u32);

#[event_handler]
struct Unit;

#[test]
fn the_fields_are_dependencies() {
    let names = |types: Vec<event_core::DependencyType>| -> Vec<&str> {
        types.iter().map(|t| t.name()).collect()
    };
    assert_eq!(
        names(Named::dependencies()),
        [
            "alloc::sync::Arc<std::collections::hash::map::HashMap<alloc::string::String, u32>>",
            "u8",
        ]
    );
    assert_eq!(
        names(Tuple::dependencies()),
        ["alloc::sync::Arc<str>", "u32"]
    );
    assert!(names(Unit::dependencies()).is_empty());
}
