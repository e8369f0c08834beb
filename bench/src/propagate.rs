//! Propagation: from publishing a stored event to the handler of a running service, at 1,000/s.
//!
//! Ours is [`Service::publish`] and a handler of [`Service::run_until`], which reads the feed, decodes
//! the event, keeps the group's checkpoint and would retry. The ceiling is XADD of the same fields,
//! and a loop of XREAD BLOCK on a connection of its own that decodes the payload.

use anyhow::Context as _;
use event_core::HandlerDefinition;
use event_core::prelude::*;
use event_tests::RedisServer;
use redis::Value;
use tokio::sync::oneshot;

use crate::bare;
use crate::feed::entries;
use crate::latency::{Listener, Stored};
use crate::order;
use crate::plan::Plan;
use crate::report::{Bound, Reach, Report};
use crate::rounds::in_turns;
use crate::start_server;

const ROW: &str = "propagate.p99";
const BARE_FEED: &str = "bare:latency";

/// Metadata as ours has it.
const METADATA: &str = r#"{"eventId":"019ab000-0000-7000-8000-000000000000","timestamp":"2026-01-01T00:00:00.000000Z","correlationId":"019ab000-0000-7000-8000-000000000000","source":"bench","schemaVersion":1}"#;

pub(crate) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if !plan.wants(ROW) {
        return Ok(());
    }
    let server = start_server()?;
    let listener = Listener::new();
    let messages = plan.amount(500, 2_000);

    let connection = bare::connect(&server).await?;
    let reading = tokio::spawn(read_bare(
        server_connection(&server).await?,
        listener.clone(),
    ));

    let handler = listener.clone();
    let handler = HandlerDefinition::function("hear", move |event: Stored, _: Context| {
        handler.hear(event.due);
        async {}
    });
    let service = Service::builder("bench")
        .store(order::store(&server, "").await?)
        .handler(handler.on("latency.stored"))
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn({
        let service = service.clone();
        async move {
            service
                .run_until(async {
                    // It also stops where measuring has failed.
                    let _ = stopped.await;
                })
                .await
        }
    });

    let sides = in_turns(
        plan.rounds(),
        async || {
            let connection = connection.clone();
            listener
                .p99(messages, move |due| {
                    let mut connection = connection.clone();
                    async move {
                        let payload = serde_json::to_string(&Stored::new(due))?;
                        let mut command = redis::cmd("XADD");
                        command.arg(BARE_FEED).arg("*");
                        command.arg("type").arg("latency.stored");
                        command.arg("payload").arg(payload);
                        command.arg("metadata").arg(METADATA);
                        bare::ask(&mut connection, &command).await?;
                        Ok(())
                    }
                })
                .await
        },
        async || {
            let service = service.clone();
            listener
                .p99(messages, move |due| {
                    let service = service.clone();
                    async move {
                        service.publish(Stored::new(due)).await?;
                        Ok(())
                    }
                })
                .await
        },
    )
    .await?;
    drop(stop);
    running.await??;
    reading.abort();
    let reach = Reach::ratio(Bound::AtMost(2.0)).and_value(Bound::AtMost(10.0));
    report.add(ROW, "ms", sides, reach);
    Ok(())
}

/// The reader's own connection: nothing else can be asked on it while it is blocked.
async fn server_connection(
    server: &RedisServer,
) -> anyhow::Result<redis::aio::MultiplexedConnection> {
    bare::connect(server).await
}

async fn read_bare(
    mut connection: redis::aio::MultiplexedConnection,
    listener: Listener,
) -> anyhow::Result<()> {
    let mut after = b"0-0".to_vec();
    loop {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(256).arg("BLOCK").arg(5_000);
        command.arg("STREAMS").arg(BARE_FEED).arg(&after);
        for entry in entries(bare::ask(&mut connection, &command).await?)? {
            let mut entry = bare::array(entry)?.into_iter();
            let id = entry.next().context("an entry without an id")?;
            let fields = bare::array(entry.next().unwrap_or(Value::Nil))?;
            // type, payload and metadata, each behind its name.
            let payload = bare::bytes(fields.get(3).context("an entry without a payload")?)?;
            listener.hear(serde_json::from_slice::<Stored>(payload)?.due);
            after = bare::bytes(&id)?.to_vec();
        }
    }
}
