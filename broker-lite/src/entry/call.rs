//! How the core calls the task of one connection: rung under the core's lock, heard by the task's
//! next poll. Driver.
//!
//! Invariant: a call that is rung before the task waits is heard as soon as it does; several make
//! one. Smaller and cheaper than a `Notify`, which knows of many waiters.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// The call of one task.
#[derive(Debug, Default)]
pub(crate) struct Call(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rung: bool,
    /// Whom to wake; stays, since a task's waker does.
    task: Option<Waker>,
}

impl Call {
    pub(crate) fn ring(&self) {
        let mut state = self.lock();
        if !state.rung {
            state.rung = true;
            if let Some(task) = &state.task {
                task.wake_by_ref();
            }
        }
    }

    /// Ready once per call; otherwise the task is woken by the next one.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if std::mem::take(&mut state.rung) {
            return Poll::Ready(());
        }
        match &mut state.task {
            Some(task) => task.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_call_is_heard_once_whether_it_comes_before_or_after_the_wait() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let call = Call::default();
        call.ring();
        assert_eq!(call.poll(&cx), Poll::Ready(()));
        assert_eq!(call.poll(&cx), Poll::Pending);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        call.ring();
        call.ring();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(call.poll(&cx), Poll::Ready(()));
        assert_eq!(call.poll(&cx), Poll::Pending);
    }
}
