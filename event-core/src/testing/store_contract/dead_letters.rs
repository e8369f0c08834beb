//! Dead letters: listed, looked at, redriven and discarded.

use super::StoreHarness;
use super::bank::{bank, category, deposits};
use super::commits::letter;
use super::steps::{LONG, acquire, append_to_feed, commit, fresh};
use crate::partition::Partition;
use crate::recorded::Position;
use crate::store::{
    Chosen, Commit, DeadLetter, DeadLetterError, DeadLetterId, DeadLetterReason, DeadLetters,
    Groups, Lease,
};

async fn list(
    store: &impl DeadLetters,
    after: Option<&DeadLetterId>,
    limit: usize,
) -> Vec<DeadLetter> {
    match store
        .list_dead_letters("g", &bank().into(), after, limit)
        .await
    {
        Ok(letters) => {
            assert!(letters.len() <= limit, "at most {limit} are wanted");
            letters
        }
        Err(error) => panic!("dead letters must be listed: {error}"),
    }
}

async fn all(store: &impl DeadLetters) -> Vec<DeadLetter> {
    list(store, None, usize::MAX).await
}

async fn redrive(store: &impl DeadLetters, chosen: Chosen) -> usize {
    match store
        .redrive_dead_letters("g", &bank().into(), &chosen)
        .await
    {
        Ok(count) => count,
        Err(error) => panic!("{chosen:?} must be redriven: {error}"),
    }
}

async fn discard(store: &impl DeadLetters, chosen: Chosen) -> usize {
    match store
        .discard_dead_letters("g", &bank().into(), &chosen)
        .await
    {
        Ok(count) => count,
        Err(error) => panic!("{chosen:?} must be discarded: {error}"),
    }
}

/// An owner of the bank, and the positions of as many events.
async fn owner(
    store: &(impl Groups + crate::store::EventStore),
    count: usize,
) -> (Lease, Vec<Position>) {
    let appended = append_to_feed(store, &bank(), deposits(count)).await;
    let (lease, _) = acquire(store, "g", &bank().into(), "owner", LONG).await;
    let positions = appended.events.iter().map(|event| event.position).collect();
    (lease, positions)
}

/// Parks dead letters of these handlers and keys, one at each position.
async fn park(
    store: &(impl Groups + crate::store::EventStore),
    letters: &[(&str, Option<&str>)],
) -> (Lease, Vec<DeadLetter>) {
    let (lease, positions) = owner(store, letters.len()).await;
    let parked: Vec<_> = letters
        .iter()
        .zip(positions)
        .map(|((handler, key), position)| letter(position, handler, *key))
        .collect();
    let parks = Commit {
        number: 1,
        parked: parked.clone(),
        ..Commit::default()
    };
    let committed = commit(store, &lease, &parks).await;
    assert_eq!(committed.dead_letters, parked.len());
    (lease, parked)
}

/// What is chosen for the rules about choosing: handlers and keys.
const LETTERS: [(&str, Option<&str>); 7] = [
    ("h1", Some("k1")),
    ("h1", Some("k2")),
    ("h2", Some("k1")),
    ("h1", None),
    ("h1", Some("k1")),
    ("", None),
    ("h2", Some("k1")),
];

/// Which of [`LETTERS`] each choice means.
fn choices(parked: &[DeadLetter]) -> Vec<(Chosen, Vec<usize>)> {
    vec![
        (Chosen::One(parked[1].id()), vec![1]),
        (Chosen::One(parked[2].id()), vec![2]),
        (Chosen::One(parked[5].id()), vec![5]),
        (Chosen::Key("k1".into()), vec![0, 2, 4, 6]),
        (Chosen::Handler("h1".into()), vec![0, 1, 3, 4]),
        (Chosen::Handler(String::new()), vec![5]),
        (Chosen::All, (0..LETTERS.len()).collect()),
        (Chosen::Key("nobody's".into()), vec![]),
        (Chosen::Handler("nobody".into()), vec![]),
    ]
}

/// A dead letter is read as it was parked, whatever its reason, key and errors.
pub async fn a_dead_letter_survives<H: StoreHarness>(harness: &H) {
    use DeadLetterReason::{
        Exhausted, Follows, Panicked, Rejected, TimedOut, Undecodable, Unreadable,
    };
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let reasons = [
        Exhausted,
        Rejected,
        Panicked,
        TimedOut,
        Unreadable,
        Undecodable,
        Follows,
    ];
    let (lease, positions) = owner(&store, reasons.len() + 1).await;
    let mut parked = Vec::new();
    for (position, reason) in positions.iter().zip(reasons) {
        parked.push(DeadLetter {
            reason,
            ..letter(*position, "Handler::method", Some("ä key: \"1\"/2"))
        });
    }
    parked.push(DeadLetter {
        handler: String::new(),
        key: None,
        event_type: None,
        event_id: None,
        errors: vec!["x".repeat(100_000), String::new(), "\u{0}\n".into()],
        attempts: u32::MAX,
        redrive: true,
        ..letter(positions[reasons.len()], "", None)
    });
    let parks = Commit {
        number: 1,
        parked: parked.clone(),
        ..Commit::default()
    };
    commit(&store, &lease, &parks).await;
    assert_eq!(all(&other).await, parked);
}

/// Dead letters are listed by position and then by handler, and page by page each comes once.
pub async fn dead_letters_are_listed_in_order_page_by_page<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (lease, positions) = owner(&store, 100).await;
    let mut parked = Vec::new();
    for position in &positions {
        for handler in ["", "a", "b", "b2", "Z"] {
            parked.push(letter(*position, handler, Some("k")));
        }
    }
    // Not in their order, and in several commits.
    let mut shuffled = parked.clone();
    shuffled.sort_by_key(|letter| letter.event_id.map(|id| id.as_u128().reverse_bits()));
    for (number, some) in (1..).zip(shuffled.chunks(70)) {
        let parks = Commit {
            number,
            parked: some.to_vec(),
            ..Commit::default()
        };
        commit(&store, &lease, &parks).await;
    }
    parked.sort_by_key(DeadLetter::id);
    assert_eq!(all(&store).await, parked);
    for limit in [1, 7, 499, 500, 501] {
        let mut found: Vec<DeadLetter> = Vec::new();
        loop {
            let after = found.last().map(DeadLetter::id);
            let page = list(&store, after.as_ref(), limit).await;
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, parked, "in pages of {limit}");
    }
    assert_eq!(list(&store, None, 0).await, []);
    // A page may begin behind one that is there no more.
    let after = parked[9].id();
    assert_eq!(discard(&store, Chosen::One(after.clone())).await, 1);
    assert_eq!(list(&store, Some(&after), 3).await, parked[10..13]);
}

/// Where there are none, nothing is listed, found, redriven or discarded.
pub async fn no_dead_letters_are_no_error<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let id = DeadLetterId {
        position: Position::new(1, 1),
        handler: "h".into(),
    };
    for opened in [false, true] {
        if opened {
            park(&store, &[("h", Some("k"))]).await;
            assert_eq!(discard(&store, Chosen::All).await, 1);
        }
        assert_eq!(all(&store).await, []);
        let found = store.inspect_dead_letter("g", &bank().into(), &id).await;
        assert_eq!(found.unwrap(), None);
        for chosen in [Chosen::One(id.clone()), Chosen::All] {
            assert_eq!(redrive(&store, chosen.clone()).await, 0);
            assert_eq!(discard(&store, chosen).await, 0);
        }
    }
}

/// Dead letters are of one group and partition, and no other can do anything with them.
pub async fn dead_letters_are_of_one_group_and_partition<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (_, parked) = park(&store, &LETTERS).await;
    let partition = Partition::from(bank());
    for (group, partition) in [("g2", &partition), ("g", &category("shop").into())] {
        let listed = store.list_dead_letters(group, partition, None, 10).await;
        assert_eq!(listed.unwrap(), []);
        let id = parked[0].id();
        let found = store.inspect_dead_letter(group, partition, &id).await;
        assert_eq!(found.unwrap(), None);
        let redriven = store
            .redrive_dead_letters(group, partition, &Chosen::All)
            .await;
        assert_eq!(redriven.unwrap(), 0);
        let discarded = store
            .discard_dead_letters(group, partition, &Chosen::All)
            .await;
        assert_eq!(discarded.unwrap(), 0);
    }
    assert_eq!(all(&store).await, parked);
}

/// Looked at, a dead letter has its entry byte by byte as it lies in the feed, be it an event, a
/// foreign entry or no event at all.
pub async fn an_inspected_dead_letter_has_its_raw_entry<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let entries: [&[(&str, &str)]; 4] = [
        &[("type", "deposited"), ("payload", r#"{ "amount": 1 }"#)],
        &[("type", "No Type"), ("payload", "{\u{0}\r\nü 🦀")],
        &[
            ("type", "deposited"),
            ("payload", ""),
            ("aggregate", "?"),
            ("metadata", r#"{"a": "b"}"#),
        ],
        &[("payload", "no type")],
    ];
    let mut places = Vec::new();
    for fields in entries {
        places.push(harness.append_foreign(&store, &bank(), fields).await);
    }
    let (lease, own) = owner(&store, 1).await;
    let parked: Vec<_> = places
        .iter()
        .chain(&own)
        .map(|position| letter(*position, "", None))
        .collect();
    let parks = Commit {
        number: 1,
        parked: parked.clone(),
        ..Commit::default()
    };
    commit(&store, &lease, &parks).await;
    for (index, letter) in parked.iter().enumerate() {
        let found = other
            .inspect_dead_letter("g", &bank().into(), &letter.id())
            .await;
        let found = found.unwrap().expect("it is there");
        assert_eq!(found.letter, *letter);
        let raw: Vec<_> = found
            .raw
            .iter()
            .map(|(name, value)| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (text(name), text(value))
            })
            .collect();
        match entries.get(index) {
            Some(fields) => {
                let expected = fields
                    .iter()
                    .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
                assert_eq!(raw, expected.collect::<Vec<_>>());
            }
            None => {
                let names: Vec<_> = raw.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names, ["type", "payload", "metadata"]);
                assert_eq!(raw[0].1, "bank.deposited");
            }
        }
    }
}

/// A redrive marks those that are chosen, and no others, and says how many; they stay dead letters.
pub async fn a_redrive_marks_those_chosen<H: StoreHarness>(harness: &H) {
    for index in 0.. {
        let store = fresh(harness).await;
        let (_, mut parked) = park(&store, &LETTERS).await;
        let mut choices = choices(&parked);
        if index == choices.len() {
            break;
        }
        let (chosen, meant) = choices.swap_remove(index);
        for number in &meant {
            parked[*number].redrive = true;
        }
        // Again, it is the same.
        for _ in 0..2 {
            assert_eq!(
                redrive(&store, chosen.clone()).await,
                meant.len(),
                "{chosen:?}"
            );
            assert_eq!(all(&store).await, parked, "{chosen:?}");
        }
    }
}

/// One alone is redriven only where no other of its key and handler comes before it; the refusal
/// names the first, and changes nothing.
pub async fn one_is_redriven_only_where_it_is_the_first<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (_, parked) = park(&store, &LETTERS).await;
    for (behind, before) in [(4, 0), (6, 2)] {
        let chosen = Chosen::One(parked[behind].id());
        let refused = store
            .redrive_dead_letters("g", &bank().into(), &chosen)
            .await;
        match refused {
            Err(DeadLetterError::NotFirst { chosen, key, first }) => {
                assert_eq!(chosen, parked[behind].id());
                assert_eq!(key, "k1");
                assert_eq!(first, parked[before].id());
            }
            other => panic!("it must not overtake the first, and came to {other:?}"),
        }
        assert_eq!(all(&store).await, parked);
    }
    assert_eq!(discard(&store, Chosen::One(parked[0].id())).await, 1);
    assert_eq!(redrive(&store, Chosen::One(parked[4].id())).await, 1);
}

/// A discard removes those that are chosen, and no others, and says how many.
pub async fn a_discard_removes_those_chosen<H: StoreHarness>(harness: &H) {
    for index in 0.. {
        let store = fresh(harness).await;
        let (lease, parked) = park(&store, &LETTERS).await;
        let mut choices = choices(&parked);
        if index == choices.len() {
            break;
        }
        let (chosen, meant) = choices.swap_remove(index);
        assert_eq!(
            discard(&store, chosen.clone()).await,
            meant.len(),
            "{chosen:?}"
        );
        let left: Vec<_> = (0..LETTERS.len())
            .filter(|number| !meant.contains(number))
            .map(|number| parked[number].clone())
            .collect();
        assert_eq!(all(&store).await, left, "{chosen:?}");
        for (number, letter) in parked.iter().enumerate() {
            let found = store
                .inspect_dead_letter("g", &bank().into(), &letter.id())
                .await
                .unwrap();
            assert_eq!(found.is_none(), meant.contains(&number));
        }
        assert_eq!(discard(&store, chosen).await, 0);
        let number = 2;
        let committed = commit(
            &store,
            &lease,
            &Commit {
                number,
                ..Commit::default()
            },
        )
        .await;
        assert_eq!(committed.dead_letters, left.len());
    }
}

/// A commit removes what is resolved, and changes what was redriven in vain, whose entry stays; but
/// what was discarded meanwhile does not come back.
pub async fn what_was_discarded_does_not_come_back<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (lease, mut parked) = park(&store, &LETTERS).await;
    let raw = async |letter: &DeadLetter| {
        let found = store
            .inspect_dead_letter("g", &bank().into(), &letter.id())
            .await;
        found.unwrap().map(|found| found.raw)
    };
    let before = raw(&parked[1]).await;
    redrive(&store, Chosen::All).await;
    assert_eq!(discard(&store, Chosen::One(parked[2].id())).await, 1);
    for letter in &mut parked {
        letter.attempts += 3;
        letter.errors = vec!["again".into()];
    }
    let done = Commit {
        number: 2,
        retried: vec![parked[1].clone(), parked[2].clone()],
        resolved: vec![parked[3].id(), parked[2].id(), parked[0].id()],
        ..Commit::default()
    };
    let committed = commit(&store, &lease, &done).await;
    assert_eq!(committed.dead_letters, 4);
    let left = all(&store).await;
    assert_eq!(
        left.iter().map(DeadLetter::id).collect::<Vec<_>>(),
        [1, 4, 5, 6].map(|number: usize| parked[number].id())
    );
    assert_eq!(left[0], parked[1]);
    assert!(
        left[1..]
            .iter()
            .all(|letter| letter.redrive && letter.attempts == 3)
    );
    assert_eq!(raw(&parked[1]).await, before);
    assert_eq!(raw(&parked[2]).await, None);
}

/// A dead letter that is parked again is there once.
pub async fn a_dead_letter_is_there_once<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let (lease, mut parked) = park(&store, &LETTERS).await;
    parked[1].attempts += 1;
    let again = Commit {
        number: 2,
        parked: vec![parked[1].clone()],
        ..Commit::default()
    };
    let committed = commit(&store, &lease, &again).await;
    assert_eq!(committed.dead_letters, parked.len());
    assert_eq!(all(&store).await, parked);
}

/// As many dead letters as a group may have are parked, listed, redriven and discarded at once.
pub async fn many_dead_letters_are_no_matter<H: StoreHarness>(harness: &H) {
    let count = 10_000 / H::LOAD_DIVISOR;
    let store = fresh(harness).await;
    let (lease, positions) = owner(&store, 1_000).await;
    let mut parked = Vec::new();
    for handler in 0..count / positions.len() {
        let handler = format!("h{handler}");
        let of = |position: &Position| letter(*position, &handler, Some("k"));
        parked.extend(positions.iter().map(of));
    }
    for (number, some) in (1..).zip(parked.chunks(1_000)) {
        let parks = Commit {
            number,
            parked: some.to_vec(),
            ..Commit::default()
        };
        commit(&store, &lease, &parks).await;
    }
    assert_eq!(all(&store).await.len(), parked.len());
    assert_eq!(redrive(&store, Chosen::Key("k".into())).await, parked.len());
    assert!(all(&store).await.iter().all(|letter| letter.redrive));
    assert_eq!(discard(&store, Chosen::Handler("h0".into())).await, 1_000);
    assert_eq!(discard(&store, Chosen::All).await, parked.len() - 1_000);
    assert_eq!(all(&store).await, []);
}

/// A new dead letter that follows one which is none any more when it is stored, or is to be handled again,
/// is to be handled again, too; and so is what follows it. Behind one that stays, it stays.
pub async fn what_follows_none_any_more_is_handled_again<H: StoreHarness>(harness: &H) {
    #[derive(Debug, PartialEq)]
    enum First {
        Stays,
        Discarded,
        Redriven,
        RedrivenInVain,
    }
    use First::*;

    for first in [Stays, Discarded, Redriven, RedrivenInVain] {
        let store = fresh(harness).await;
        let (lease, positions) = owner(&store, 4).await;
        let letters: Vec<_> = positions
            .iter()
            .map(|position| letter(*position, "h", Some("k")))
            .collect();
        let parks = Commit {
            number: 1,
            parked: vec![letters[0].clone()],
            ..Commit::default()
        };
        commit(&store, &lease, &parks).await;
        let one = Chosen::One(letters[0].id());
        match first {
            Stays => {}
            Discarded => assert_eq!(discard(&store, one).await, 1),
            Redriven | RedrivenInVain => assert_eq!(redrive(&store, one).await, 1),
        }
        // Without having heard of that.
        let follows = |of: usize| (letters[of].id(), letters[of - 1].id());
        let retried = match first {
            RedrivenInVain => vec![letters[0].clone()],
            _ => Vec::new(),
        };
        let behind = Commit {
            number: 2,
            parked: letters[1..3].to_vec(),
            follows: vec![follows(1), follows(2)],
            retried,
            ..Commit::default()
        };
        commit(&store, &lease, &behind).await;
        let last = Commit {
            number: 3,
            parked: vec![letters[3].clone()],
            follows: vec![follows(3)],
            ..Commit::default()
        };
        commit(&store, &lease, &last).await;
        let expected = match first {
            Stays | RedrivenInVain => vec![false; 4],
            Discarded => vec![true; 3],
            Redriven => vec![true; 4],
        };
        let found = all(&store).await;
        let found: Vec<_> = found.iter().map(|letter| letter.redrive).collect();
        assert_eq!(found, expected, "the first one: {first:?}");
    }
}
