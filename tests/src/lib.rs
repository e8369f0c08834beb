//! Real Redis servers for the workspace's tests and benchmarks.
//!
//! - [`RedisServer`] starts, kills, freezes and restarts a server of its own.
//! - [`RedisCluster`] is a cluster of such servers.
//! - [`redis_server`] holds what it is started with: [`Aof`](redis_server::Aof),
//!   [`Listen`](redis_server::Listen), and what can go wrong: [`Error`](redis_server::Error).
//!
//! The tests under `tests/` are those that need more than one crate of the workspace.

pub mod redis_server;

pub use redis_server::{RedisCluster, RedisServer};

/// The programs in the documents must compile.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../docs/how-to/make-a-handler-idempotent.md")]
    struct MakeAHandlerIdempotent;
    #[doc = include_str!("../../docs/how-to/change-an-event.md")]
    struct ChangeAnEvent;
    #[doc = include_str!("../../docs/how-to/choose-partitions.md")]
    struct ChoosePartitions;
    #[doc = include_str!("../../docs/how-to/begin-or-reset-a-group.md")]
    struct BeginOrResetAGroup;
    #[doc = include_str!("../../docs/how-to/run-on-a-cluster.md")]
    struct RunOnACluster;
    #[doc = include_str!("../../docs/how-to/do-a-command-once.md")]
    struct DoACommandOnce;
    #[doc = include_str!("../../docs/how-to/load-long-histories-fast.md")]
    struct LoadLongHistoriesFast;
    #[doc = include_str!("../../docs/how-to/trim-a-feed.md")]
    struct TrimAFeed;
    #[doc = include_str!("../../docs/how-to/check-and-repair-a-history.md")]
    struct CheckAndRepairAHistory;
    #[doc = include_str!("../../docs/how-to/add-a-projection.md")]
    struct AddAProjection;
    #[doc = include_str!("../../docs/how-to/rebuild-a-projection.md")]
    struct RebuildAProjection;
    #[doc = include_str!("../../docs/how-to/read-your-own-writes.md")]
    struct ReadYourOwnWrites;
    #[doc = include_str!("../../docs/how-to/record-and-replay.md")]
    struct RecordAndReplay;
    #[doc = include_str!("../../docs/how-to/replay-into-handlers.md")]
    struct ReplayIntoHandlers;
    #[doc = include_str!("../../docs/how-to/undo-a-bad-deploy.md")]
    struct UndoABadDeploy;
    #[doc = include_str!("../../docs/how-to/handle-dead-letters.md")]
    struct HandleDeadLetters;
    #[doc = include_str!("../../docs/how-to/invalidate-a-cache.md")]
    struct InvalidateACache;
    #[doc = include_str!("../../docs/how-to/shut-down.md")]
    struct ShutDown;
    #[doc = include_str!("../../docs/how-to/tune-for-a-storm.md")]
    struct TuneForAStorm;
    #[doc = include_str!("../../docs/how-to/stream-ai-chunks-to-a-browser.md")]
    struct StreamAiChunksToABrowser;
    #[doc = include_str!("../../docs/how-to/resume-a-subscription.md")]
    struct ResumeASubscription;
    #[doc = include_str!("../../docs/how-to/serve-behind-a-proxy.md")]
    struct ServeBehindAProxy;
}
