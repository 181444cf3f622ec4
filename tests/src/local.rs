//! A whole provider in this process, on any transport, for tests.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dlambda_privacy::clock::Clock;
use dlambda_privacy::transport::Transport;
use dlambda_proto::Endpoint;
use dlambda_provider::{
    DataDir, Observer, Provider, ProviderConfig, ProviderError, SessionRecord, Stop,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::program::binary;

/// Keeps every session's record in memory.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<SessionRecord>>);

/// A running provider; stops when dropped.
pub struct LocalProvider {
    /// Where it answers.
    pub endpoint: Endpoint,
    /// What it has seen since it was ready.
    pub recorder: Arc<Recorder>,
    stop: Stop,
    task: Option<JoinHandle<Result<(), ProviderError>>>,
}

impl LocalProvider {
    /// Starts a provider and waits until it has called itself.
    ///
    /// # Errors
    ///
    /// [`ProviderError`], from starting or from the call to itself.
    pub async fn start(
        mut config: ProviderConfig,
        functions: &Path,
        data: &Path,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ProviderError> {
        if config.execution.program.is_none() {
            // A provider looks beside its own program, and cargo puts tests elsewhere.
            config.execution.program = binary("dlambda-executor").ok();
        }
        let data = DataDir::open(data)?;
        let provider = Provider::start(config, functions, data, transport, clock).await?;
        let endpoint = provider.endpoint();
        let stop = provider.stop_handle();
        let recorder = Arc::new(Recorder::default());
        let observer = Arc::clone(&recorder) as Arc<dyn Observer>;
        let (sender, ready) = oneshot::channel();
        let mut task = tokio::spawn(async move {
            let announce = move || {
                let _ = sender.send(());
            };
            let serving = provider.serve(Duration::from_secs(120), Some(observer), announce);
            Box::pin(serving).await
        });
        tokio::select! {
            Ok(()) = ready => {}
            ended = &mut task => return Err(ended
                .ok()
                .and_then(Result::err)
                .unwrap_or(ProviderError::SelfTestAnswer)),
        }
        Ok(Self {
            endpoint,
            recorder,
            stop,
            task: Some(task),
        })
    }

    /// Stops gently and waits for the end.
    ///
    /// # Errors
    ///
    /// What ended the provider, if it was not this call.
    pub async fn stop(mut self) -> Result<(), ProviderError> {
        self.stop.stop();
        match self.task.take() {
            Some(task) => task.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

impl Drop for LocalProvider {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Recorder {
    /// The records of all sessions that have ended.
    #[must_use]
    pub fn records(&self) -> Vec<SessionRecord> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.clone()
    }

    /// Waits until `count` sessions have ended, for at most ten seconds.
    pub async fn wait_for(&self, count: usize) -> Vec<SessionRecord> {
        for _ in 0..200 {
            if self.records().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.records()
    }
}

impl Observer for Recorder {
    fn session_ended(&self, record: SessionRecord) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.push(record);
    }
}
