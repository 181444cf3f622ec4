//! For tests: the steps that change files, so that a test can end the process at each of them.

use std::sync::OnceLock;

type Hook = Box<dyn Fn(&'static str) + Send + Sync>;

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Calls `hook` after every step from now on, in the thread that took the step.
pub(crate) fn on_step(hook: impl Fn(&'static str) + Send + Sync + 'static) {
    assert!(HOOK.set(Box::new(hook)).is_ok(), "one hook a process");
}

/// Something on disk has just changed.
pub(crate) fn step(name: &'static str) {
    if let Some(hook) = HOOK.get() {
        hook(name);
    }
}
