//! What is wrong with what lies in the feeds.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::events::{
    AuditNoted, AuditTallied, Bill, InvoiceIssued, LedgerBooked, OrderPlaced, Part, ReceiptIssued,
    bill_of, is_tallied, ledger_of,
};
use crate::feeds::{Entry, Feed, Progress};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Missing,
    Doubled,
    OutOfOrder,
    Behind,
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Missing => "missing",
            Kind::Doubled => "doubled",
            Kind::OutOfOrder => "out of order",
            Kind::Behind => "behind",
            Kind::Other => "other",
        })
    }
}

/// What is wrong, and how much there was to look at.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: BTreeMap<Kind, Vec<String>>,
    pub(crate) orders: usize,
    pub(crate) invoices: usize,
    pub(crate) audits: usize,
    pub(crate) receipts: usize,
    pub(crate) bookings: usize,
}

/// An order: whose, and which.
type Order = (String, u32);

/// An event that a handler has emitted.
struct Emitted {
    part: Part,
    cause: Option<String>,
    place: String,
}

/// What the payloads of all events have.
#[derive(Deserialize)]
struct Of {
    customer: String,
    number: u32,
}

/// What the events of each run come from: an order, and for a receipt which of its invoices.
#[derive(Default)]
struct Runs {
    of: BTreeMap<(Order, u32), Vec<Emitted>>,
}

impl Runs {
    fn add(&mut self, feed: &Feed, entry: &Entry, order: Order, invoice: u32, part: Part) {
        self.of.entry((order, invoice)).or_default().push(Emitted {
            part,
            cause: entry.cause.clone(),
            place: format!("{} {}", feed.key, entry.position),
        });
    }
}

/// Judges what has become of the orders that all customers have placed.
pub(crate) fn judge(
    customers: impl Iterator<Item = (String, u32)>,
    feeds: &[Feed],
    progress: &[Progress],
) -> Verdict {
    let mut verdict = Verdict::default();
    // The ids of what is handled, by what it is.
    let mut orders: HashMap<Order, String> = HashMap::new();
    let mut invoices: BTreeMap<(Order, u32), String> = BTreeMap::new();
    let (mut bills, mut tallies, mut receipts, mut bookings) = (
        Runs::default(),
        Runs::default(),
        Runs::default(),
        Runs::default(),
    );
    for feed in feeds {
        for entry in &feed.entries {
            let Some(of) = verdict.payload::<Of>(feed, entry) else {
                continue;
            };
            let order = (of.customer, of.number);
            match entry.event_type.as_str() {
                "order.placed" if verdict.payload::<OrderPlaced>(feed, entry).is_some() => {
                    verdict.orders += 1;
                    if orders
                        .insert(order.clone(), entry.event_id.clone())
                        .is_some()
                    {
                        verdict.say(
                            Kind::Doubled,
                            format!("{} is in its feed twice", name(&order)),
                        );
                    }
                }
                "invoice.issued" => {
                    if let Some(event) = verdict.payload::<InvoiceIssued>(feed, entry) {
                        verdict.invoices += 1;
                        let invoice = (order.clone(), event.part.ordinal);
                        invoices.insert(invoice, entry.event_id.clone());
                        bills.add(feed, entry, order, 0, event.part);
                    }
                }
                "audit.noted" => {
                    if let Some(event) = verdict.payload::<AuditNoted>(feed, entry) {
                        verdict.audits += 1;
                        bills.add(feed, entry, order, 0, event.part);
                    }
                }
                "audit.tallied" => {
                    if let Some(event) = verdict.payload::<AuditTallied>(feed, entry) {
                        verdict.audits += 1;
                        tallies.add(feed, entry, order, 0, event.part);
                    }
                }
                "ledger.booked" => {
                    if let Some(event) = verdict.payload::<LedgerBooked>(feed, entry) {
                        verdict.bookings += 1;
                        verdict.ledger(feed, entry, &event.customer);
                        bookings.add(feed, entry, order, 0, event.part);
                    }
                }
                "receipt.issued" => {
                    if let Some(event) = verdict.payload::<ReceiptIssued>(feed, entry) {
                        verdict.receipts += 1;
                        receipts.add(feed, entry, order, event.invoice, event.part);
                    }
                }
                other => verdict.say(Kind::Other, format!("{} has a {other}", feed.key)),
            }
        }
        verdict.order_in(feed);
        verdict.versions_in(feed);
    }

    for (customer, count) in customers {
        for number in 1..=count {
            let order = (customer.clone(), number);
            let Some(id) = orders.get(&order) else {
                verdict.say(
                    Kind::Missing,
                    format!("{} was published, and is not in its feed", name(&order)),
                );
                continue;
            };
            let bill = bill_of(number);
            let emitted = bills.of.remove(&(order.clone(), 0)).unwrap_or_default();
            verdict.run("bill", &name(&order), id, &emitted, |count| {
                bill.allows(count)
            });
            verdict.audit(&order, bill, &emitted);
            let emitted = tallies.of.remove(&(order.clone(), 0)).unwrap_or_default();
            let expected = usize::from(is_tallied(number));
            verdict.run("tally", &name(&order), id, &emitted, |count| {
                count == expected
            });
            let emitted = bookings.of.remove(&(order.clone(), 0)).unwrap_or_default();
            verdict.run("book", &name(&order), id, &emitted, |count| count == 1);
        }
    }
    for ((order, invoice), id) in &invoices {
        let key = (order.clone(), *invoice);
        let emitted = receipts.of.remove(&key).unwrap_or_default();
        let source = format!("invoice {invoice} of {}", name(order));
        verdict.run("receive", &source, id, &emitted, |count| count == 1);
    }
    for (handler, runs) in [
        ("bill", bills),
        ("tally", tallies),
        ("book", bookings),
        ("receive", receipts),
    ] {
        for ((order, _), emitted) in runs.of {
            let places: Vec<_> = emitted.into_iter().map(|one| one.place).collect();
            verdict.say(
                Kind::Other,
                format!(
                    "`{handler}` has emitted for {}, which there is not: {}",
                    name(&order),
                    places.join(", ")
                ),
            );
        }
    }
    for progress in progress {
        verdict.progress(progress);
    }
    verdict
}

fn name((customer, number): &Order) -> String {
    format!("order {number} of {customer}")
}

impl Verdict {
    pub(crate) fn say(&mut self, kind: Kind, what: String) {
        self.violations.entry(kind).or_default().push(what);
    }

    fn payload<T: DeserializeOwned>(&mut self, feed: &Feed, entry: &Entry) -> Option<T> {
        match serde_json::from_str(&entry.payload) {
            Ok(payload) => Some(payload),
            Err(error) => {
                self.say(
                    Kind::Other,
                    format!("{} {}: {error}", feed.key, entry.position),
                );
                None
            }
        }
    }

    /// What one handler has emitted for one event.
    fn run(
        &mut self,
        handler: &str,
        source: &str,
        source_id: &str,
        emitted: &[Emitted],
        allows: impl Fn(usize) -> bool,
    ) {
        let places = || {
            let places: Vec<_> = emitted.iter().map(|one| one.place.as_str()).collect();
            places.join(", ")
        };
        let Some(first) = emitted.first() else {
            if !allows(0) {
                self.say(
                    Kind::Missing,
                    format!("`{handler}` has emitted nothing for {source}"),
                );
            }
            return;
        };
        let mut ordinals: Vec<_> = emitted.iter().map(|one| one.part.ordinal).collect();
        ordinals.sort_unstable();
        let whole: Vec<_> = (0..first.part.of).collect();
        if emitted.iter().any(|one| one.part.run != first.part.run) {
            self.say(
                Kind::Doubled,
                format!(
                    "several runs of `{handler}` for {source} are stored: {}",
                    places()
                ),
            );
        } else if ordinals != whole {
            let kind = if ordinals.len() < whole.len() {
                Kind::Missing
            } else {
                Kind::Doubled
            };
            self.say(kind, format!(
                "`{handler}` has emitted {} events for {source}, of which there are {ordinals:?}: {}",
                first.part.of,
                places()
            ));
        } else if !allows(emitted.len()) {
            self.say(
                Kind::Other,
                format!(
                    "`{handler}` has emitted too many or too few for {source}: {}",
                    places()
                ),
            );
        }
        if let Some(other) = emitted
            .iter()
            .find(|one| one.cause.as_deref() != Some(source_id))
        {
            self.say(
                Kind::Other,
                format!("{} names another cause than {source}", other.place),
            );
        }
    }

    /// Of what `bill` emits, it is the last that goes to the audit.
    fn audit(&mut self, order: &Order, bill: Bill, emitted: &[Emitted]) {
        let wanted = usize::from(bill == Bill::InvoiceAndAudit);
        let found = emitted
            .iter()
            .filter(|one| one.place.starts_with("events:audit "))
            .count();
        if found != wanted && !emitted.is_empty() {
            self.say(
                Kind::Other,
                format!(
                    "{} has {found} notes in the audit instead of {wanted}",
                    name(order)
                ),
            );
        }
    }

    /// Within a partition the events of each customer are in order, for each type.
    fn order_in(&mut self, feed: &Feed) {
        #[derive(Deserialize)]
        struct Place {
            customer: String,
            number: u32,
            #[serde(default)]
            invoice: u32,
            part: Option<Part>,
        }

        let mut newest: HashMap<(String, &str), (u32, u32, u32)> = HashMap::new();
        for entry in &feed.entries {
            // What cannot be read has been said.
            let Ok(place) = serde_json::from_str::<Place>(&entry.payload) else {
                continue;
            };
            let ordinal = place.part.map_or(0, |part| part.ordinal);
            let now = (place.number, place.invoice, ordinal);
            let before = newest.insert((place.customer.clone(), entry.event_type.as_str()), now);
            if let Some(before) = before
                && before >= now
            {
                self.say(
                    Kind::OutOfOrder,
                    format!(
                        "{} of {}, {now:?} comes after {before:?} ({} {})",
                        entry.event_type, place.customer, feed.key, entry.position
                    ),
                );
            }
        }
    }

    /// A booking is of the aggregate that it belongs to.
    fn ledger(&mut self, feed: &Feed, entry: &Entry, customer: &str) {
        let found = entry.aggregate.as_ref();
        let found = found.map(|found| (found.aggregate_type.as_str(), found.id.as_str()));
        if found != Some(("ledger", ledger_of(customer))) {
            self.say(
                Kind::Other,
                format!(
                    "{} {} is of {found:?}, and of {customer}",
                    feed.key, entry.position
                ),
            );
        }
    }

    /// The events of each aggregate have versions without holes, and its history has the same.
    fn versions_in(&mut self, feed: &Feed) {
        let mut expected: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        for entry in &feed.entries {
            let Some(aggregate) = &entry.aggregate else {
                continue;
            };
            let (aggregate_type, id) = (&aggregate.aggregate_type, &aggregate.id);
            let history = format!("{{{}}}:history:{aggregate_type}:{id}", feed.key);
            let events = expected.entry(history).or_default();
            let last = events.last().map_or(0, |(version, _)| *version);
            events.push((aggregate.version, entry.event_id.clone()));
            if aggregate.version != last + 1 {
                let kind = if aggregate.version > last {
                    Kind::Missing
                } else {
                    Kind::Doubled
                };
                self.say(
                    kind,
                    format!(
                        "version {} of {id} comes after {last} ({} {})",
                        aggregate.version, feed.key, entry.position
                    ),
                );
            }
        }
        if expected == feed.histories {
            return;
        }
        for (history, events) in &expected {
            if feed.histories.get(history) != Some(events) {
                self.say(
                    Kind::Other,
                    format!("{history} is another history than {} has", feed.key),
                );
            }
        }
        for history in feed.histories.keys() {
            if !expected.contains_key(history) {
                self.say(
                    Kind::Other,
                    format!("{} has nothing of {history}", feed.key),
                );
            }
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let Progress {
            group,
            feed,
            head,
            checkpoint,
            reached,
            open,
            dead_letters,
            on_the_way,
            lag,
        } = progress;
        if !progress.is_at_head() {
            self.say(Kind::Behind, format!(
                "{group} is not at the head of {feed}, {head}: checkpoint {checkpoint}, reached {reached}, open {open}, {on_the_way} in outboxes"
            ));
        }
        if *dead_letters > 0 {
            self.say(
                Kind::Behind,
                format!("{group} has {dead_letters} dead letters in {feed}"),
            );
        }
        if *lag != Some(0) {
            self.say(
                Kind::Behind,
                format!("XINFO GROUPS says of {group} in {feed} a lag of {lag:?}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::feeds::Version;

    /// One customer with four orders, whose every event is where it belongs.
    fn feeds() -> Vec<Feed> {
        let (mut orders, mut invoices, mut audits, mut receipts, mut bookings) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut history = Vec::new();
        let mut count = 0;
        let mut entry = |event_type: &str, payload: serde_json::Value, cause: Option<&str>| {
            count += 1;
            Entry {
                position: format!("{count}-0"),
                event_type: event_type.into(),
                payload: payload.to_string(),
                event_id: format!("id {count}"),
                cause: cause.map(str::to_owned),
                aggregate: None,
            }
        };
        for number in 1..=4_u32 {
            let of = json!({"customer": "c", "number": number});
            let order = entry("order.placed", of.clone(), None);
            let run = Uuid::from_u128(number.into());
            let count = if number == 4 { 2 } else { 1 };
            let part = |run: Uuid, ordinal: u32, count: u32| {
                let mut payload = of.clone();
                payload["part"] = json!({"run": run, "ordinal": ordinal, "of": count});
                payload
            };
            let invoice = entry("invoice.issued", part(run, 0, count), Some(&order.event_id));
            let mut receipt = part(Uuid::from_u128(100 + u128::from(number)), 0, 1);
            receipt["invoice"] = json!(0);
            receipts.push(entry("receipt.issued", receipt, Some(&invoice.event_id)));
            if number == 4 {
                audits.push(entry("audit.noted", part(run, 1, 2), Some(&order.event_id)));
            }
            if number == 3 {
                let tally = part(Uuid::from_u128(200), 0, 1);
                audits.push(entry("audit.tallied", tally, Some(&order.event_id)));
            }
            let booking = part(Uuid::from_u128(300 + u128::from(number)), 0, 1);
            let mut booking = entry("ledger.booked", booking, Some(&order.event_id));
            booking.aggregate = Some(Version {
                aggregate_type: "ledger".into(),
                id: "c".into(),
                version: number.into(),
            });
            history.push((u64::from(number), booking.event_id.clone()));
            bookings.push(booking);
            orders.push(order);
            invoices.push(invoice);
        }
        let mut feeds: Vec<_> = [
            ("order", orders),
            ("invoice", invoices),
            ("audit", audits),
            ("receipt", receipts),
            ("ledger", bookings),
        ]
        .map(|(category, entries)| Feed {
            key: format!("events:{category}"),
            entries,
            histories: BTreeMap::new(),
        })
        .into();
        let key = "{events:ledger}:history:ledger:c".to_owned();
        feeds[4].histories.insert(key, history);
        feeds
    }

    fn judged(feeds: &[Feed], progress: &[Progress]) -> Vec<String> {
        let verdict = judge([("c".to_owned(), 4)].into_iter(), feeds, progress);
        let said = verdict.violations.into_iter().flat_map(|(kind, said)| {
            let with_kind = move |what| format!("{kind}: {what}");
            said.into_iter().map(with_kind)
        });
        said.collect()
    }

    fn says(violations: &[String], what: &str) {
        assert!(
            violations.iter().any(|violation| violation.contains(what)),
            "{what}: {violations:?}"
        );
    }

    #[test]
    fn nothing_is_said_where_nothing_is_wrong() {
        assert_eq!(judged(&feeds(), &[]), Vec::<String>::new());
    }

    #[test]
    fn whatever_is_missing_is_said() {
        for (feed, what) in [
            (0, "is not in its feed"),
            (1, "`bill` has emitted nothing"),
            (3, "`receive` has emitted nothing"),
            (4, "`book` has emitted nothing"),
            (4, "version 2 of c comes after 0"),
            (4, "another history"),
        ] {
            let mut feeds = feeds();
            feeds[feed].entries.remove(0);
            says(&judged(&feeds, &[]), what);
        }
        let mut feeds = feeds();
        let tallied = feeds[2].entries.remove(0);
        says(&judged(&feeds, &[]), "`tally`");
        feeds[2].entries = vec![tallied];
        says(&judged(&feeds, &[]), "of which there are [0]");
    }

    #[test]
    fn whatever_is_doubled_is_said() {
        for feed in 0..5 {
            let mut feeds = feeds();
            let again = feeds[feed].entries[0].clone();
            feeds[feed].entries.push(again);
            assert!(!judged(&feeds, &[]).is_empty(), "feed {feed}");
        }
        let mut feeds = super::tests::feeds();
        for history in feeds[4].histories.values_mut() {
            let again = history[0].clone();
            history.push(again);
        }
        says(&judged(&feeds, &[]), "another history");
        let mut feeds = super::tests::feeds();
        let mut again = feeds[1].entries[3].clone();
        again.payload = again.payload.replace("000004", "000009");
        feeds[1].entries.push(again);
        says(&judged(&feeds, &[]), "several runs of `bill`");
    }

    #[test]
    fn what_is_out_of_order_is_said() {
        for feed in [0, 1, 3] {
            let mut feeds = feeds();
            feeds[feed].entries.swap(1, 2);
            says(&judged(&feeds, &[]), "out of order");
        }
    }

    #[test]
    fn what_comes_of_something_else_is_said() {
        let mut feeds = feeds();
        feeds[1].entries[0].cause = Some("other".into());
        says(&judged(&feeds, &[]), "names another cause");
        feeds[1].entries[0].payload = feeds[1].entries[0].payload.replace("\"c\"", "\"d\"");
        says(&judged(&feeds, &[]), "which there is not");
    }

    #[test]
    fn a_group_that_is_behind_is_said() {
        let at_head = Progress {
            group: "g",
            feed: "events:order".into(),
            head: "4-0".into(),
            checkpoint: "4-0".into(),
            reached: "4-0".into(),
            open: "[]".into(),
            dead_letters: 0,
            on_the_way: 0,
            lag: Some(0),
        };
        assert!(judged(&feeds(), std::slice::from_ref(&at_head)).is_empty());
        for (progress, what) in [
            (
                Progress {
                    checkpoint: "3-0".into(),
                    ..at_head.clone()
                },
                "not at the head",
            ),
            (
                Progress {
                    open: "[{}]".into(),
                    ..at_head.clone()
                },
                "not at the head",
            ),
            (
                Progress {
                    on_the_way: 3,
                    ..at_head.clone()
                },
                "3 in outboxes",
            ),
            (
                Progress {
                    dead_letters: 1,
                    ..at_head.clone()
                },
                "dead letters",
            ),
            (
                Progress {
                    lag: Some(2),
                    ..at_head.clone()
                },
                "a lag of",
            ),
        ] {
            says(&judged(&feeds(), &[progress]), what);
        }
    }
}
