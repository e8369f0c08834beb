//! Metrics: what bridges and transports count and measure, through the [`metrics`](https://docs.rs/metrics) facade.
//!
//! Every name, unit and description is here, and in `docs/reference/graphql.md`. As with those of
//! [`event_core::metrics`], a program installs a recorder **before** it makes its bridge and transport.
//!
//! ```
//! // After the recorder is installed:
//! event_core::metrics::describe();
//! event_graphql::metrics::describe();
//! ```

use ::metrics::{Counter, Gauge, Unit};
use event_core::metrics::{Metric, MetricKind};

const CATEGORY: &str = "messaging.destination.name";
const PROTOCOL: &str = "network.protocol.name";
const CODE: &str = "event.close.code";

/// Readers that run.
pub const READERS: Metric = Metric {
    name: "event.bridge.readers",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    labels: &[],
    description: "Partitions that are read, and sets of realtime events that are listened to, for all clients of the process",
};

/// Clients that readers have.
pub const CLIENTS: Metric = Metric {
    name: "event.bridge.clients",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    labels: &[],
    description: "Looks that subscriptions have at readers: one for each partition, and one for each subscription to realtime events",
};

/// Entries that readers have read.
pub const ENTRIES: Metric = Metric {
    name: "event.bridge.entries",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[CATEGORY],
    description: "Entries of feeds that were read once for all clients",
};

/// Pages that were read for single clients.
pub const PAGES: Metric = Metric {
    name: "event.bridge.pages",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[CATEGORY],
    description: "Pages of feeds that were read for one client: for its history, or because it was too slow",
};

/// Events that slow clients have not got.
pub const LEFT_OUT: Metric = Metric {
    name: "event.bridge.left_out",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[],
    description: "Events that clients have not got because they were too slow, and wanted it so or listened to realtime events",
};

/// Realtime events that have not arrived.
pub const MISSED: Metric = Metric {
    name: "event.bridge.missed",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[],
    description: "Realtime events that were sent, and have not arrived at this process",
};

/// Connections that are open.
pub const CONNECTIONS: Metric = Metric {
    name: "event.transport.connections",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    labels: &[PROTOCOL],
    description: "WebSockets (`websocket`) and streams of server-sent events (`sse`) that are open",
};

/// Results that were written.
pub const RESULTS: Metric = Metric {
    name: "event.transport.results",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[PROTOCOL],
    description: "Results of operations that were written to clients",
};

/// Sockets that the server has closed.
pub const CLOSES: Metric = Metric {
    name: "event.transport.closes",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    labels: &[CODE],
    description: "WebSockets that the server has closed, by the code it gave; `dropped` where the client did not read, or not answer a ping",
};

/// Executions that are shared.
pub const SHARED: Metric = Metric {
    name: "event.transport.shared",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    labels: &[],
    description: "Subscriptions that are executed once for all clients that ask for the same",
};

/// All metrics there are.
pub const ALL: [Metric; 10] = [
    READERS,
    CLIENTS,
    ENTRIES,
    PAGES,
    LEFT_OUT,
    MISSED,
    CONNECTIONS,
    RESULTS,
    CLOSES,
    SHARED,
];

/// Tells the recorder of the program the units and descriptions of all metrics. To be called once, after it is
/// installed.
pub fn describe() {
    for metric in ALL {
        let Metric {
            name,
            unit,
            description,
            ..
        } = metric;
        match metric.kind {
            MetricKind::Counter => ::metrics::describe_counter!(name, unit, description),
            MetricKind::Gauge => ::metrics::describe_gauge!(name, unit, description),
            MetricKind::Histogram => ::metrics::describe_histogram!(name, unit, description),
        }
    }
}

/// What is counted of bridges.
#[derive(Clone)]
pub(crate) struct BridgeMetrics {
    pub(crate) readers: Gauge,
    pub(crate) clients: Gauge,
    pub(crate) left_out: Counter,
    pub(crate) missed: Counter,
}

impl Default for BridgeMetrics {
    fn default() -> Self {
        Self {
            readers: ::metrics::gauge!(READERS.name),
            clients: ::metrics::gauge!(CLIENTS.name),
            left_out: ::metrics::counter!(LEFT_OUT.name),
            missed: ::metrics::counter!(MISSED.name),
        }
    }
}

/// What is counted of a partition that is read.
pub(crate) struct FeedMetrics {
    pub(crate) entries: Counter,
    pub(crate) pages: Counter,
}

impl FeedMetrics {
    pub(crate) fn new(category: &str) -> Self {
        let category = category.to_owned();
        Self {
            entries: ::metrics::counter!(ENTRIES.name, CATEGORY => category.clone()),
            pages: ::metrics::counter!(PAGES.name, CATEGORY => category),
        }
    }
}

/// What is counted of the connections of one protocol.
pub(crate) struct ConnectionMetrics {
    connections: Gauge,
    pub(crate) results: Counter,
}

impl ConnectionMetrics {
    pub(crate) fn new(protocol: &'static str) -> Self {
        Self {
            connections: ::metrics::gauge!(CONNECTIONS.name, PROTOCOL => protocol),
            results: ::metrics::counter!(RESULTS.name, PROTOCOL => protocol),
        }
    }

    /// One more is open, until what is returned is dropped.
    pub(crate) fn open(&self) -> Open {
        self.connections.increment(1.0);
        Open(self.connections.clone())
    }
}

/// A connection that is open.
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A socket was closed with this code.
pub(crate) fn closed(code: u16) {
    ::metrics::counter!(CLOSES.name, CODE => code.to_string()).increment(1);
}

/// A socket was dropped.
pub(crate) fn dropped() {
    ::metrics::counter!(CLOSES.name, CODE => "dropped").increment(1);
}

/// How many executions are shared.
pub(crate) fn shared() -> Gauge {
    ::metrics::gauge!(SHARED.name)
}
