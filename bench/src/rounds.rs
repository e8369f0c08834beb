//! Rounds: both sides in turns, so that what else the machine does hits both.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

/// The medians of what both sides reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sides {
    pub(crate) ceiling: f64,
    pub(crate) ours: f64,
}

/// Measures ceiling, ours, ceiling, ours …, and takes the median of each side's rounds. The first
/// round warms both up and does not count.
pub(crate) async fn in_turns(
    rounds: usize,
    mut ceiling: impl AsyncFnMut() -> anyhow::Result<f64>,
    mut ours: impl AsyncFnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Sides> {
    let (mut ceilings, mut our_own) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let bare = ceiling().await.context("measuring the ceiling")?;
        let framework = ours().await.context("measuring the framework")?;
        if round > 0 {
            ceilings.push(bare);
            our_own.push(framework);
        }
    }
    Ok(Sides {
        ceiling: median(ceilings)?,
        ours: median(our_own)?,
    })
}

/// Measures what has no other side, and takes the median. The first round warms up and does not
/// count.
pub(crate) async fn alone(
    rounds: usize,
    mut measure: impl AsyncFnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<f64> {
    let mut values = Vec::new();
    for round in 0..=rounds {
        let value = measure().await?;
        if round > 0 {
            values.push(value);
        }
    }
    median(values)
}

fn median(mut values: Vec<f64>) -> anyhow::Result<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    values.get(middle).copied().context("no round was measured")
}

/// Runs tasks on the workers of the runtime, and gives the time from the first one's start to the
/// last one's end.
pub(crate) async fn time<F>(tasks: impl IntoIterator<Item = F>) -> anyhow::Result<Duration>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let start = Instant::now();
    for task in tasks {
        running.spawn(task);
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(start.elapsed())
}

/// So many in that time, for each second.
pub(crate) fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
