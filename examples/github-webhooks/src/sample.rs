//! The sample: invented deliveries to try the program with.

/// The deliveries, one a line. Some lines are signed; some are no deliveries.
pub const DELIVERIES: &str = include_str!("../sample/deliveries.jsonl");

/// The secret that the signed ones are signed with.
pub const SECRET: &str = "octo-sample-secret";
