//! What the rules append: accounts of a bank, and notices that it sends.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::aggregate::Aggregate;
use crate::codec::{Codec, NewEvent};
use crate::event::{Category, Event, EventDefinition};
use crate::metadata::Metadata;
use crate::recorded::AggregateId;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::testing) enum AccountEvent {
    Deposited { amount: u64 },
    Withdrawn { amount: u64, note: Option<String> },
    Closed,
}

const ACCOUNT_EVENTS: &[EventDefinition] = &[
    EventDefinition::new("bank.deposited").variant(0),
    EventDefinition::new("bank.withdrawn").variant(1),
    EventDefinition::new("bank.account.closed").variant(2),
];

impl Event for AccountEvent {
    const DEFINITIONS: &'static [EventDefinition] = ACCOUNT_EVENTS;

    fn definition(&self) -> &'static EventDefinition {
        &ACCOUNT_EVENTS[match self {
            AccountEvent::Deposited { .. } => 0,
            AccountEvent::Withdrawn { .. } => 1,
            AccountEvent::Closed => 2,
        }]
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::testing) struct Account {
    pub(in crate::testing) balance: u64,
    pub(in crate::testing) entries: u64,
    pub(in crate::testing) closed: bool,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::testing) enum AccountCommand {
    Deposit(u64),
    /// So many deposits of 1: several events.
    DepositCoins(u64),
    Withdraw(u64),
    Close,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the account holds {balance} only")]
pub(in crate::testing) struct Overdrawn {
    pub(in crate::testing) balance: u64,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Event = AccountEvent;
    type Command = AccountCommand;
    type Error = Overdrawn;

    fn apply(&mut self, event: &AccountEvent) {
        self.entries += 1;
        match event {
            AccountEvent::Deposited { amount } => self.balance += amount,
            AccountEvent::Withdrawn { amount, .. } => self.balance -= amount,
            AccountEvent::Closed => self.closed = true,
        }
    }

    fn handle(&self, command: AccountCommand) -> Result<Vec<AccountEvent>, Overdrawn> {
        match command {
            AccountCommand::Deposit(amount) => Ok(vec![AccountEvent::Deposited { amount }]),
            AccountCommand::DepositCoins(count) => Ok((0..count)
                .map(|_| AccountEvent::Deposited { amount: 1 })
                .collect()),
            AccountCommand::Withdraw(amount) if amount > self.balance => Err(Overdrawn {
                balance: self.balance,
            }),
            AccountCommand::Withdraw(amount) => {
                Ok(vec![AccountEvent::Withdrawn { amount, note: None }])
            }
            AccountCommand::Close if self.closed => Ok(Vec::new()),
            AccountCommand::Close => Ok(vec![AccountEvent::Closed]),
        }
    }
}

/// Realtime events, of two categories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::testing) enum Notice {
    RateQuoted { number: u64 },
    RateWithdrawn { number: u64 },
    RatesClosed { number: u64 },
    RainBegun { number: u64 },
}

const NOTICES: &[EventDefinition] = &[
    EventDefinition::new("bank.rate.quoted")
        .realtime()
        .variant(0),
    EventDefinition::new("bank.rate.withdrawn")
        .realtime()
        .variant(1),
    EventDefinition::new("bank.rates.closed")
        .realtime()
        .variant(2),
    EventDefinition::new("weather.rain.begun")
        .realtime()
        .variant(3),
];

impl Event for Notice {
    const DEFINITIONS: &'static [EventDefinition] = NOTICES;

    fn definition(&self) -> &'static EventDefinition {
        &NOTICES[match self {
            Notice::RateQuoted { .. } => 0,
            Notice::RateWithdrawn { .. } => 1,
            Notice::RatesClosed { .. } => 2,
            Notice::RainBegun { .. } => 3,
        }]
    }
}

impl Notice {
    /// One of each type, with this number.
    pub(in crate::testing) fn of_each_type(number: u64) -> Vec<NewEvent> {
        [
            Notice::RateQuoted { number },
            Notice::RateWithdrawn { number },
            Notice::RatesClosed { number },
            Notice::RainBegun { number },
        ]
        .iter()
        .map(|notice| notice.encode())
        .collect()
    }

    pub(in crate::testing) fn encode(&self) -> NewEvent {
        Codec::default()
            .encode(self)
            .expect("a notice can be encoded")
    }
}

pub(in crate::testing) fn bank() -> Category {
    category("bank")
}

pub(in crate::testing) fn category(name: &str) -> Category {
    Category::new(name).expect("a category of the suite is one")
}

pub(in crate::testing) fn account(id: &str) -> AggregateId {
    AggregateId::of::<Account>(id).expect("an id of the suite is one")
}

/// An event of the bank.
pub(in crate::testing) fn deposit() -> NewEvent {
    Codec::default()
        .encode(&AccountEvent::Deposited { amount: 1 })
        .expect("a deposit can be encoded")
}

pub(in crate::testing) fn deposits(count: usize) -> Vec<NewEvent> {
    (0..count).map(|_| deposit()).collect()
}

/// An event of any category.
pub(in crate::testing) fn event_of(category: &Category) -> NewEvent {
    event_with(&format!("{category}.happened"), "{}")
}

/// An event with this payload.
pub(in crate::testing) fn event_with(event_type: &str, payload: &str) -> NewEvent {
    let metadata = Metadata::new(Uuid::now_v7(), Codec::default().clock().now());
    NewEvent::from_parts(event_type, payload, metadata).expect("an event of the suite is one")
}
