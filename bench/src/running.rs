//! A service that runs while something is measured.

use event_core::{Service, ServiceError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServiceError>>,
}

impl Running {
    pub(crate) fn start(service: &Service) -> Self {
        let service = service.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async {
                // It also stops where measuring has failed.
                let _ = stopped.await;
            };
            service.run_until(stopped).await
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        Ok(self.task.await??)
    }
}
