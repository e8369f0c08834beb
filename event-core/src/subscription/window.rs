//! The window: the entries of a partition that are read and not yet behind the checkpoint, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use crate::recorded::Position;
use crate::store::{Open, Progress};

/// Which entry of a window, counted over its whole life.
pub(super) type Number = u64;

/// What of a window's entry decides how far it can move.
pub(super) trait Settling {
    /// Where it lies.
    fn position(&self) -> Position;
    /// The event's id, where it is an event.
    fn event_id(&self) -> Option<Uuid>;
    /// The bytes of its payload.
    fn bytes(&self) -> usize;
    /// Whether all its handlers are through, what they emitted being part of the next commit.
    fn is_settled(&self) -> bool;
    /// Whether it is settled, and all of it is stored.
    fn is_finished(&self) -> bool;
    /// The handlers that are through, where not all are.
    fn done(&self) -> Vec<Arc<str>>;
    /// Counts it as finished; `false` where it was counted before.
    fn count(&mut self) -> bool;
}

/// Entries in the order of their partition.
pub(super) struct Window<T> {
    entries: VecDeque<T>,
    /// The number of the first of them.
    first: Number,
    /// Everything up to here is finished.
    checkpoint: Position,
    event_id: Option<Uuid>,
    /// At least everything up to here has been looked at, and what is not in the window is finished.
    reached: Position,
}

impl<T: Settling> Window<T> {
    /// A window that goes on from what is stored; what is open there must be pushed first.
    pub(super) fn new(progress: &Progress) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            checkpoint: progress.checkpoint,
            event_id: progress.event_id,
            reached: progress.reached,
        }
    }

    pub(super) fn push(&mut self, entry: T) -> Number {
        self.entries.push_back(entry);
        self.first + self.entries.len() as Number - 1
    }

    pub(super) fn get_mut(&mut self, number: Number) -> Option<&mut T> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)
    }

    /// Leaves behind what is finished; gives how many entries that were, and their bytes.
    pub(super) fn advance(&mut self) -> (usize, usize) {
        let (mut left, mut bytes) = (0, 0);
        while let Some(entry) = self.entries.front()
            && entry.is_finished()
        {
            self.checkpoint = entry.position();
            self.event_id = entry.event_id();
            self.reached = self.reached.max(self.checkpoint);
            bytes += entry.bytes();
            left += 1;
            self.entries.pop_front();
            self.first += 1;
        }
        // Where nothing is open, what had been finished before is behind the checkpoint, too.
        if self.entries.is_empty() && self.checkpoint < self.reached {
            self.checkpoint = self.reached;
            self.event_id = None;
        }
        (left, bytes)
    }

    /// How many entries [`progress`](Self::progress) takes for finished that were not counted yet.
    /// With the commit that says so they are counted, or after a crash nobody would.
    pub(super) fn count_settled(&mut self) -> u64 {
        let settled = self.entries.iter_mut().filter(|entry| entry.is_settled());
        settled.map(|entry| u64::from(entry.count())).sum()
    }

    /// How far the partition will be handled once the next commit is stored.
    pub(super) fn progress(&self) -> Progress {
        let mut progress = Progress {
            checkpoint: self.checkpoint,
            event_id: self.event_id,
            reached: self.reached,
            open: Vec::new(),
        };
        let mut entries = self.entries.iter();
        // Up to the first that is not settled, the checkpoint moves along.
        let unsettled = loop {
            match entries.next() {
                None => {
                    return progress.without_gap();
                }
                Some(entry) if entry.is_settled() => {
                    progress.checkpoint = entry.position();
                    progress.event_id = entry.event_id();
                    progress.reached = progress.reached.max(progress.checkpoint);
                }
                Some(entry) => break entry,
            }
        };
        // Behind it, what is settled is reached, and what is not stays open.
        let mut open = Vec::new();
        let note = |entry: &T, progress: &mut Progress, open: &mut Vec<Open>| {
            let position = entry.position();
            if entry.is_settled() {
                progress.reached = progress.reached.max(position);
                progress.open.append(open);
            } else {
                let done = entry.done();
                let has_done = !done.is_empty();
                open.push(Open { position, done });
                if has_done || position <= progress.reached {
                    progress.reached = progress.reached.max(position);
                    progress.open.append(open);
                }
            }
        };
        note(unsettled, &mut progress, &mut open);
        for entry in entries {
            note(entry, &mut progress, &mut open);
        }
        progress.without_gap()
    }
}

impl Progress {
    /// Where nothing is open, the checkpoint is where the group has come.
    fn without_gap(mut self) -> Self {
        if self.open.is_empty() && self.checkpoint < self.reached {
            self.checkpoint = self.reached;
            self.event_id = None;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Entry(u64, State, bool);

    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Open,
        InPart,
        Settled,
        Finished,
    }

    impl Settling for Entry {
        fn position(&self) -> Position {
            Position::new(self.0, 0)
        }

        fn event_id(&self) -> Option<Uuid> {
            Some(Uuid::from_u128(self.0.into()))
        }

        fn bytes(&self) -> usize {
            10
        }

        fn is_settled(&self) -> bool {
            matches!(self.1, State::Settled | State::Finished)
        }

        fn is_finished(&self) -> bool {
            self.1 == State::Finished
        }

        fn done(&self) -> Vec<Arc<str>> {
            match self.1 {
                State::InPart => vec!["a".into()],
                _ => Vec::new(),
            }
        }

        fn count(&mut self) -> bool {
            !std::mem::replace(&mut self.2, true)
        }
    }

    fn window(states: &[State]) -> Window<Entry> {
        let mut window = Window::new(&Progress::default());
        for (number, state) in (1..).zip(states) {
            window.push(Entry(number, *state, false));
        }
        window
    }

    fn told(window: &Window<Entry>) -> (u64, u64, Vec<u64>) {
        let progress = window.progress();
        let open = progress.open.iter().map(|o| o.position.milliseconds());
        (
            progress.checkpoint.milliseconds(),
            progress.reached.milliseconds(),
            open.collect(),
        )
    }

    #[test]
    fn the_checkpoint_never_passes_what_is_open() {
        use State::{Finished, InPart, Open, Settled};
        assert_eq!(told(&window(&[])), (0, 0, vec![]));
        assert_eq!(told(&window(&[Open, Open])), (0, 0, vec![]));
        assert_eq!(told(&window(&[Settled, Finished])), (2, 2, vec![]));
        assert_eq!(told(&window(&[Settled, Open, Open])), (1, 1, vec![]));
        assert_eq!(
            told(&window(&[Open, Settled, Open, Finished, Open])),
            (0, 4, vec![1, 3])
        );
        assert_eq!(
            told(&window(&[Settled, InPart, Open, InPart, Open])),
            (1, 4, vec![2, 3, 4])
        );
    }

    #[test]
    fn what_is_settled_is_counted_once() {
        use State::{Finished, InPart, Open, Settled};
        let mut window = window(&[Finished, Open, Settled, InPart]);
        assert_eq!(window.count_settled(), 2);
        window.get_mut(2).unwrap().1 = Finished;
        window.get_mut(3).unwrap().1 = Settled;
        assert_eq!(window.count_settled(), 1);
    }

    #[test]
    fn what_is_finished_is_left_behind() {
        use State::{Finished, Open, Settled};
        let mut window = window(&[Finished, Finished, Settled, Open, Finished]);
        assert_eq!(window.advance(), (2, 20));
        assert_eq!(told(&window), (3, 5, vec![4]));
        window.get_mut(2).unwrap().1 = Finished;
        window.get_mut(3).unwrap().1 = Finished;
        assert!(window.get_mut(1).is_none());
        assert_eq!(window.advance(), (3, 30));
        assert_eq!(told(&window), (5, 5, vec![]));
    }

    #[test]
    fn what_was_open_before_is_open_until_it_is_finished() {
        let stored = Progress {
            checkpoint: Position::new(1, 0),
            event_id: None,
            reached: Position::new(9, 0),
            open: Vec::new(),
        };
        let mut window = Window::new(&stored);
        window.push(Entry(3, State::Open, false));
        window.push(Entry(7, State::Open, false));
        assert_eq!(told(&window), (1, 9, vec![3, 7]));
        window.get_mut(0).unwrap().1 = State::Finished;
        window.advance();
        assert_eq!(told(&window), (3, 9, vec![7]));
        window.push(Entry(12, State::Open, false));
        assert_eq!(told(&window), (3, 9, vec![7]));
        window.get_mut(1).unwrap().1 = State::Settled;
        assert_eq!(told(&window), (9, 9, vec![]));
    }
}
