//! The load of an owned partition: what its reader must know of its handling.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::metrics::{Gauge, PartitionMetrics};
use crate::store::Progress;

/// Entries of a partition that may be read and not yet behind the checkpoint.
const WINDOW: usize = 2_048;

/// Where so much is free again, more is read.
const ROOM: usize = 512;

/// As many bytes of payloads may be in a window before nothing more is read.
pub(super) const BYTES: usize = 16 * 1024 * 1024;

/// As many bytes should be read at once.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// What is shared by the reader of a partition and its handling.
pub(super) struct Load {
    in_window: AtomicUsize,
    bytes: AtomicUsize,
    /// Bytes of one payload, as of late.
    typical_bytes: AtomicUsize,
    dead_letters: AtomicUsize,
    dead_letter_limit: usize,
    progress: Mutex<Progress>,
    pub(super) metrics: PartitionMetrics,
    /// The lag of each handler with parallel delivery.
    pub(super) parallel_lags: Vec<Gauge>,
}

impl Load {
    pub(super) fn new(
        progress: Progress,
        dead_letter_limit: usize,
        metrics: PartitionMetrics,
        parallel_lags: Vec<Gauge>,
    ) -> Self {
        Self {
            in_window: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            typical_bytes: AtomicUsize::new(1),
            dead_letters: AtomicUsize::new(0),
            dead_letter_limit,
            progress: Mutex::new(progress),
            metrics,
            parallel_lags,
        }
    }

    /// Notes entries that were read, with the bytes of their payloads.
    pub(super) fn add(&self, count: usize, bytes: usize) {
        self.in_window.fetch_add(count, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let typical = bytes.checked_div(count).unwrap_or_default().max(1);
        self.typical_bytes.store(typical, Ordering::Release);
    }

    /// Makes room; tells whether the reader should look again.
    pub(super) fn remove(&self, count: usize, bytes: usize) -> bool {
        let bytes_before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        let before = self.in_window.fetch_sub(count, Ordering::AcqRel);
        let after = before.saturating_sub(count);
        after == 0
            || (before > WINDOW - ROOM && after <= WINDOW - ROOM)
            || (bytes_before > BYTES && bytes_before.saturating_sub(bytes) <= BYTES)
    }

    /// How many entries are read and not yet behind the checkpoint.
    pub(super) fn in_flight(&self) -> usize {
        self.in_window.load(Ordering::Acquire)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_window.load(Ordering::Acquire) == 0
    }

    /// How many entries may be read now.
    pub(super) fn room(&self) -> usize {
        let room = WINDOW.saturating_sub(self.in_window.load(Ordering::Acquire));
        if room < ROOM || self.is_full() || self.bytes.load(Ordering::Acquire) > BYTES {
            0
        } else {
            let typical = self.typical_bytes.load(Ordering::Acquire);
            room.min((BATCH_BYTES / typical).max(1))
        }
    }

    pub(super) fn set_dead_letters(&self, count: usize) {
        self.dead_letters.store(count, Ordering::Release);
        self.metrics.dead_letters.set(count as f64);
    }

    /// Tells nothing more of the partition, which is not owned any more.
    pub(super) fn fall_silent(&self) {
        self.metrics.dead_letters.set(0.0);
        self.metrics.lag.set(0.0);
        for lag in &self.parallel_lags {
            lag.set(0.0);
        }
    }

    pub(super) fn dead_letters(&self) -> usize {
        self.dead_letters.load(Ordering::Acquire)
    }

    /// Whether there are as many dead letters as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.dead_letters() >= self.dead_letter_limit
    }

    pub(super) fn set_progress(&self, progress: &Progress) {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(progress);
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
