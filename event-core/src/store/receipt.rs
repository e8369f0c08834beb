//! Receipts: what is kept of a command, so that it is done once.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::recorded::Version;

/// The longest id of a command, in bytes.
pub const MAX_COMMAND_ID_BYTES: usize = 512;

/// Says that an append is what a command has led to: it is stored once for each id of a command, as long
/// as the receipt is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The id of the command, any text of 1 to [`MAX_COMMAND_ID_BYTES`] bytes. Each aggregate has ids of
    /// its own.
    pub command_id: String,
    /// For how long it is kept, to the millisecond.
    pub keep: Duration,
}

/// The versions of the events that a command has led to.
pub type Done = RangeInclusive<Version>;
