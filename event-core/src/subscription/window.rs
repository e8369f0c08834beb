//! The window: the entries of a partition that are read and not finished, in order.
//!
//! What is finished leaves it at once, wherever it lies: so an entry that takes long holds back
//! nothing but the checkpoint.

use std::collections::BTreeMap;
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
    /// The handlers that are through, where not all are.
    fn done(&self) -> Vec<Arc<str>>;
    /// Counts it as finished; `false` where it was counted before.
    fn count(&mut self) -> bool;
}

/// Entries in the order of their partition.
pub(super) struct Window<T> {
    entries: BTreeMap<Number, T>,
    /// The number of the next one.
    next: Number,
    /// Everything up to here is finished, and the id of the event there.
    checkpoint: (Position, Option<Uuid>),
    /// Everything up to here has been looked at, and what is not in the window is finished; and the id
    /// of the event there.
    reached: (Position, Option<Uuid>),
}

impl<T: Settling> Window<T> {
    /// A window that goes on from what is stored; what is open there must be pushed first.
    pub(super) fn new(progress: &Progress) -> Self {
        Self {
            entries: BTreeMap::new(),
            next: 0,
            checkpoint: (progress.checkpoint, progress.event_id),
            reached: (progress.reached, None),
        }
    }

    pub(super) fn push(&mut self, entry: T) -> Number {
        let number = self.next;
        self.next += 1;
        self.entries.insert(number, entry);
        number
    }

    pub(super) fn get_mut(&mut self, number: Number) -> Option<&mut T> {
        self.entries.get_mut(&number)
    }

    /// Leaves behind an entry that is finished; gives its bytes.
    pub(super) fn leave(&mut self, number: Number) -> usize {
        let is_first = self.entries.first_key_value().map(|(first, _)| *first) == Some(number);
        let Some(entry) = self.entries.remove(&number) else {
            return 0;
        };
        let place = (entry.position(), entry.event_id());
        if is_first {
            self.checkpoint = place;
        }
        self.reach(place);
        entry.bytes()
    }

    /// Leaves behind an entry for which there is nothing to do.
    pub(super) fn pass(&mut self, position: Position, event_id: Option<Uuid>) {
        self.reach((position, event_id));
    }

    fn reach(&mut self, place: (Position, Option<Uuid>)) {
        if place.0 > self.reached.0 {
            self.reached = place;
        }
        let reached = self.reached.0;
        // Where nothing is open before it, the checkpoint is where everything is finished.
        let is_free = self
            .entries
            .first_key_value()
            .is_none_or(|(_, first)| first.position() > reached);
        if is_free && self.checkpoint.0 < reached {
            self.checkpoint = self.reached;
        }
    }

    /// How many entries [`progress`](Self::progress) takes for finished that were not counted yet.
    /// With the commit that says so they are counted, or after a crash nobody would.
    pub(super) fn count_settled(&mut self) -> u64 {
        let settled = self.entries.values_mut().filter(|entry| entry.is_settled());
        settled.map(|entry| u64::from(entry.count())).sum()
    }

    /// How far the partition will be handled once the next commit is stored.
    pub(super) fn progress(&self) -> Progress {
        let (mut checkpoint, mut event_id) = self.checkpoint;
        let mut reached = self.reached;
        let mut is_unbroken = true;
        let mut waiting = Vec::new();
        for entry in self.entries.values() {
            let position = entry.position();
            if entry.is_settled() {
                if is_unbroken {
                    (checkpoint, event_id) = (position, entry.event_id());
                }
                if position > reached.0 {
                    reached = (position, entry.event_id());
                }
                continue;
            }
            is_unbroken = false;
            let done = entry.done();
            // What is done of it must be known to whoever owns the partition next.
            if !done.is_empty() && position > reached.0 {
                reached = (position, None);
            }
            waiting.push(Open { position, done });
        }
        waiting.retain(|open| open.position <= reached.0);
        if waiting.is_empty() && checkpoint < reached.0 {
            (checkpoint, event_id) = reached;
        }
        Progress {
            checkpoint,
            event_id,
            reached: reached.0,
            open: waiting,
        }
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
    fn what_is_finished_leaves_wherever_it_lies() {
        use State::{Open, Settled};
        let mut window = window(&[Open, Open, Settled, Open, Open]);
        assert_eq!(window.leave(1), 10);
        assert_eq!(window.leave(1), 0);
        assert_eq!(told(&window), (0, 3, vec![1]));
        assert_eq!(window.leave(0), 10);
        assert_eq!(told(&window), (3, 3, vec![]));
        window.leave(2);
        window.leave(4);
        assert_eq!(told(&window), (3, 5, vec![4]));
        window.leave(3);
        assert_eq!(told(&window), (5, 5, vec![]));
        let id = window.progress().event_id;
        assert_eq!(id, Some(Uuid::from_u128(5)));
        window.pass(Position::new(8, 0), None);
        assert_eq!(told(&window), (8, 8, vec![]));
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
        window.leave(0);
        assert_eq!(told(&window), (3, 9, vec![7]));
        window.push(Entry(12, State::Open, false));
        assert_eq!(told(&window), (3, 9, vec![7]));
        window.get_mut(1).unwrap().1 = State::Settled;
        assert_eq!(told(&window), (9, 9, vec![]));
    }
}
