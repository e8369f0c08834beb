//! The events, the aggregate and the service that the tests share.

use event_core::prelude::*;
use event_core::{Category, HandlerDefinition, Recording, Retry, ServiceBuilder};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("github.push", key = repository)]
pub(crate) struct GithubPush {
    pub(crate) repository: String,
    pub(crate) commits: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("repository.analyzed", key = repository)]
pub(crate) struct RepositoryAnalyzed {
    pub(crate) repository: String,
    pub(crate) findings: u32,
    pub(crate) report: uuid::Uuid,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event("repository.announced", realtime)]
pub(crate) struct Announced {
    pub(crate) repository: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
pub(crate) enum ProjectEvent {
    #[event("sdlc.work.counted")]
    Counted { commits: u32 },
    #[event("sdlc.work.finished")]
    Finished,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Project {
    pub(crate) commits: u32,
}

impl Aggregate for Project {
    const TYPE: &'static str = "project";
    type Event = ProjectEvent;
    type Command = u32;
    type Error = BoxError;

    fn apply(&mut self, event: &ProjectEvent) {
        match event {
            ProjectEvent::Counted { commits } => self.commits += commits,
            ProjectEvent::Finished => {}
        }
    }

    fn handle(&self, commits: u32) -> Result<Vec<ProjectEvent>, BoxError> {
        Ok(vec![ProjectEvent::Counted { commits }])
    }
}

/// Each push, as it would be recorded: its second, its repository, its commits.
pub(crate) fn pushes(pushes: &[(u32, &str, u32)]) -> Recording {
    let lines = pushes.iter().enumerate().map(|(number, (second, repository, commits))| {
        format!(
            r#"{{"position":"176390000{second}000-{number}","type":"github.push","payload":{{"repository":"{repository}","commits":{commits}}},"metadata":{{"timestamp":"2025-11-23T12:13:{second:02}Z","key":"{repository}"}}}}"#
        )
    });
    let text: String = lines.map(|line| line + "\n").collect();
    text.parse().unwrap()
}

/// Analyzes each push, and counts it in its project; fails on those of more than 100 commits.
pub(crate) fn agent() -> ServiceBuilder {
    #[event_handler]
    struct Agent {
        projects: Repository<Project>,
        ids: NextReport,
    }

    #[event_handler(group = "recordings")]
    impl Agent {
        #[on("github.push")]
        #[emits("repository.analyzed", "repository.announced")]
        async fn analyze(
            &self,
            push: GithubPush,
        ) -> Result<(RepositoryAnalyzed, Announced), BoxError> {
            if push.commits > 100 {
                return Err("that is too much".into());
            }
            self.projects
                .execute(&push.repository, push.commits)
                .await?;
            let announced = Announced {
                repository: push.repository.clone(),
            };
            let analyzed = RepositoryAnalyzed {
                repository: push.repository,
                findings: push.commits,
                report: (self.ids.0)(),
            };
            Ok((analyzed, announced))
        }
    }

    Service::builder("agent")
        .group("recordings")
        .provide(NextReport(uuid::Uuid::now_v7))
        .retry(Retry {
            base: std::time::Duration::from_millis(1),
            max_delay: std::time::Duration::from_millis(1),
            max: 2,
        })
}

/// Gives ids by chance.
#[derive(Clone)]
struct NextReport(fn() -> uuid::Uuid);

/// The same without chance.
pub(crate) fn counting() -> ServiceBuilder {
    let count = HandlerDefinition::function("count", |push: GithubPush, _: Context| async move {
        To::<Project>(
            push.repository,
            ProjectEvent::Counted {
                commits: push.commits,
            },
        )
    });
    Service::builder("counting")
        .without_discovered_handlers()
        .handler(count.on("github.push").emits("sdlc.work.counted"))
}

pub(crate) fn category(name: &str) -> Category {
    Category::new(name).unwrap()
}
