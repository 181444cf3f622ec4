//! The clock by which guests yield.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

use crate::ExecutorError;
use crate::engine::setup;

/// How often guests are made to yield, and so the longest that one holds an async worker.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// One thread an engine. It sleeps while no call runs, and ends when the ticker is dropped.
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Thread,
}

/// Keeps the clock going.
pub(crate) struct Ticking(Arc<State>);

#[derive(Default)]
struct State {
    calls: AtomicUsize,
    stopped: AtomicBool,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> Result<Self, ExecutorError> {
        let state = Arc::new(State::default());
        let (weak, shared) = (engine.weak(), Arc::clone(&state));
        let thread = thread::Builder::new()
            .name("wasm-ticker".into())
            .spawn(move || tick(&weak, &shared))
            .map_err(setup)?;
        Ok(Self {
            state,
            thread: thread.thread().clone(),
        })
    }

    /// A call begins; it ends when the result is dropped.
    pub(crate) fn ticking(&self) -> Ticking {
        if self.state.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Ticking(Arc::clone(&self.state))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(engine: &EngineWeak, state: &State) {
    while !state.stopped.load(Ordering::SeqCst) {
        if state.calls.load(Ordering::SeqCst) == 0 {
            thread::park_timeout(Duration::from_secs(10));
            continue;
        }
        match engine.upgrade() {
            Some(engine) => engine.increment_epoch(),
            None => return,
        }
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn it_ends_with_its_owner() {
        let engine = Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        let state = Arc::downgrade(&ticker.state);
        let call = ticker.ticking();
        thread::sleep(3 * TICK);
        drop((call, ticker));
        let begun = Instant::now();
        while state.strong_count() > 0 {
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "the thread goes on"
            );
            thread::sleep(TICK);
        }
    }
}
