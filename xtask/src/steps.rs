//! What a run with several steps says: each step's start and duration, and a summary with what to repeat. Shell.
//!
//! Invariant: a failed step stops none of those after it, and the run fails if one of them did.

#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The steps done so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<Done>,
}

struct Done {
    name: String,
    took: Duration,
    outcome: Result<()>,
}

impl Steps {
    /// Runs one step; `name` is also what `cargo xtask test` repeats it by.
    pub(crate) fn run(&mut self, name: &str, purpose: &str, work: impl FnOnce() -> Result<()>) {
        println!("==> {name}: {purpose}");
        let start = Instant::now();
        let outcome = work();
        let done = Done {
            name: name.to_owned(),
            took: start.elapsed(),
            outcome,
        };
        println!("{}", done.line());
        self.done.push(done);
    }

    /// Prints the summary; an error names how many steps failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n==> summary");
        for done in &self.done {
            println!("{}", done.line());
            if let Err(error) = &done.outcome {
                println!(
                    "            {error:#}\n            again: cargo xtask test {}",
                    done.name
                );
            }
        }
        match self
            .done
            .iter()
            .filter(|done| done.outcome.is_err())
            .count()
        {
            0 => Ok(()),
            failed => bail!("{failed} of {} steps failed", self.done.len()),
        }
    }
}

impl Done {
    fn line(&self) -> String {
        let word = if self.outcome.is_ok() { "ok" } else { "FAILED" };
        format!(
            "    {word:<7} {:<12} {:>7.1} s",
            self.name,
            self.took.as_secs_f32()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Steps;

    #[test]
    fn a_failed_step_fails_the_run_but_not_the_steps_after_it() {
        let mut steps = Steps::default();
        let mut later = false;
        steps.run("first", "fails", || anyhow::bail!("broken"));
        steps.run("second", "works", || {
            later = true;
            Ok(())
        });
        assert!(later);
        assert_eq!(
            steps.finish().unwrap_err().to_string(),
            "1 of 2 steps failed"
        );
    }
}
