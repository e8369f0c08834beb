//! Kills, freezes and cuts off services under load, and then reads from the feeds alone whether
//! anything is missing, doubled or out of order.
//!
//! | module | what it is |
//! |---|---|
//! | `events` | what is published, and what must come of it |
//! | `worker` | a process that handles events, and does so badly at times |
//! | `instances` | these processes, as they are started, killed, frozen and stopped |
//! | `proxy` | what lies between everybody and the server, and cuts connections |
//! | `load` | publishes |
//! | `faults` | what goes wrong, and when |
//! | `feeds` | what lies in Redis afterwards, by plain commands |
//! | `verdict` | what is wrong with it |
//! | `run` | all of it together |
//! | `storm` | far more events than a service can handle |

mod events;
mod faults;
mod feeds;
mod instances;
mod load;
mod proxy;
mod run;
mod storm;
mod verdict;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Kills, freezes and cuts off services under load, and then reads from the feeds whether anything is
/// missing, doubled or out of order.
#[derive(Parser)]
#[command(name = "chaos", bin_name = "cargo xtask chaos")]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    plan: Plan,
}

#[derive(Subcommand)]
enum Role {
    /// One of the processes that handle events; this program starts them itself.
    #[command(hide = true)]
    Worker(worker::Job),
    /// Sends far more events than a service can handle, and looks at its memory.
    Storm(storm::Storm),
    /// The service of the storm; this program starts it itself.
    #[command(hide = true)]
    Slow(storm::Slow),
}

/// What is to go wrong.
#[derive(Args, Clone, Debug)]
struct Plan {
    /// What every choice comes from; another one each time by default.
    #[arg(long)]
    seed: Option<u64>,
    /// How many events are published.
    #[arg(long, default_value_t = 20_000)]
    events: u32,
    /// How many keys they have.
    #[arg(long, default_value_t = 200)]
    keys: u32,
    /// How often a worker is killed with SIGKILL, and started again at once.
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// How often a worker is halted with SIGSTOP for longer than its lease.
    #[arg(long, default_value_t = 5)]
    freezes: u32,
    /// How often a worker is asked with SIGTERM to end, and started again.
    #[arg(long, default_value_t = 5)]
    stops: u32,
    /// How often the server is killed with SIGKILL, and started again.
    #[arg(long, default_value_t = 3)]
    server_kills: u32,
    /// For how long things go wrong; by default as long as so many kills take.
    #[arg(long)]
    minutes: Option<f64>,
    /// Has each feed lie in a slot of its own, as it may in a cluster: what is emitted goes through
    /// outboxes.
    #[arg(long)]
    slots: bool,
    /// Switches a safeguard off, to show that it is missed.
    #[arg(long)]
    plant: Option<Plant>,
    /// Keeps the logs of the workers, and says where they are.
    #[arg(long)]
    keep_logs: bool,
}

/// A safeguard that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Plant {
    /// Commits are stored whoever owns the partition by now.
    Epoch,
    /// Commits that are repeated are stored once more.
    Dedup,
    /// What lies in outboxes is stored whether or not it was delivered already; implies `--slots`.
    Marks,
}

impl Plan {
    /// For how long things go wrong.
    fn duration(&self) -> Duration {
        if let Some(minutes) = self.minutes {
            return Duration::from_secs_f64((minutes * 60.0).max(1.0));
        }
        let seconds = (self.kills * 5 / 4)
            .max(self.freezes * 6)
            .max(self.server_kills * 10);
        Duration::from_secs(seconds.max(10).into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Worker(job)) => worker::work(job).await,
        Some(Role::Storm(storm)) => storm::rage(storm).await,
        Some(Role::Slow(slow)) => storm::handle(slow).await,
        None => run::run(arguments.plan).await,
    }
}
