//! What is to be measured, and how much of it.

/// Chosen on the command line.
pub(crate) struct Plan {
    quick: bool,
    only: Vec<String>,
}

impl Plan {
    pub(crate) fn new(quick: bool, only: Vec<String>) -> Self {
        Self { quick, only }
    }

    /// Whether a row is to be measured.
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|start| row.starts_with(start.as_str()))
    }

    /// How much to do: quickly, or in full.
    pub(crate) fn amount(&self, quick: usize, full: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// How often both sides take turns, beside the round that only warms them up.
    pub(crate) fn rounds(&self) -> usize {
        self.amount(3, 11)
    }

    /// The same for what takes long.
    pub(crate) fn few_rounds(&self) -> usize {
        self.amount(1, 5)
    }
}
