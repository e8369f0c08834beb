/// How large an append may be. Beyond it, it is refused before anything is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one payload as JSON; 1 MiB by default.
    pub payload_bytes: usize,
    /// Bytes of one event's metadata as JSON; 16 KiB by default.
    pub metadata_bytes: usize,
    /// Events of one append; 1,000 by default.
    pub events_per_append: usize,
    /// Ids of events that a feed remembers, so that an append that is repeated stores nothing
    /// twice; 100,000 by default, and for 24 hours. Appends that expect an exact version need no
    /// such memory.
    pub remembered_ids: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes: 1024 * 1024,
            metadata_bytes: 16 * 1024,
            events_per_append: 1_000,
            remembered_ids: 100_000,
        }
    }
}
