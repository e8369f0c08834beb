//! The report: a table of sales, and beside it the position up to which each partition is in it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use event_core::projection::{ProjectionSink, SinkBatch};
use event_core::{BoxError, Partition, Position};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::OrderPlaced;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS sales (customer TEXT PRIMARY KEY, orders INTEGER, cents INTEGER);
    CREATE TABLE IF NOT EXISTS positions (partition TEXT PRIMARY KEY, position TEXT);
";

/// A report in a database. Clones share the connection.
#[derive(Clone)]
pub struct Report {
    connection: Arc<Mutex<Connection>>,
}

/// What one customer has ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The customer.
    pub customer: String,
    /// How many orders.
    pub orders: i64,
    /// For how much, in cents.
    pub cents: i64,
}

impl Report {
    /// Opens a database, and makes its tables where they are not there.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn open(path: impl AsRef<Path>) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.execute_batch(TABLES)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    /// What the report says, by customer.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn lines(&self) -> rusqlite::Result<Vec<Line>> {
        let connection = self.connection.lock();
        let connection = connection.unwrap_or_else(PoisonError::into_inner);
        let mut select =
            connection.prepare("SELECT customer, orders, cents FROM sales ORDER BY customer")?;
        let lines = select.query_map([], |row| {
            Ok(Line {
                customer: row.get(0)?,
                orders: row.get(1)?,
                cents: row.get(2)?,
            })
        })?;
        lines.collect()
    }

    /// Does something with the connection where it may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, BoxError> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || {
            work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await?
    }
}

fn position_of(connection: &Connection, partition: &str) -> Result<Position, BoxError> {
    let known: Option<String> = connection
        .query_row(
            "SELECT position FROM positions WHERE partition = ?1",
            [partition],
            |row| row.get(0),
        )
        .optional()?;
    Ok(known.map_or(Ok(Position::START), |text| text.parse())?)
}

#[async_trait]
impl ProjectionSink for Report {
    async fn checkpoint(&self, partition: &Partition) -> Result<Position, BoxError> {
        let partition = partition.to_string();
        self.with(move |connection| position_of(connection, &partition))
            .await
    }

    async fn apply(&self, batch: &SinkBatch<'_>) -> Result<bool, BoxError> {
        let partition = batch.partition.to_string();
        let (from, to) = (batch.from, batch.to);
        let orders = batch.events.iter().map(event_core::RecordedEvent::decode);
        let orders: Vec<OrderPlaced> = orders.collect::<Result<_, _>>()?;
        self.with(move |connection| {
            // Another process may be at it: nobody else writes from here on.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if position_of(&transaction, &partition)? != from {
                return Ok(false);
            }
            for order in orders {
                transaction.execute(
                    "INSERT INTO sales VALUES (?1, 1, ?2) ON CONFLICT (customer)
                     DO UPDATE SET orders = orders + 1, cents = cents + ?2",
                    params![order.customer, order.cents],
                )?;
            }
            transaction.execute(
                "INSERT INTO positions VALUES (?1, ?2) ON CONFLICT (partition)
                 DO UPDATE SET position = ?2",
                params![partition, to.to_string()],
            )?;
            transaction.commit()?;
            Ok(true)
        })
        .await
    }
}
