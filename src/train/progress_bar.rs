//! A progress bar in the terminal.

use super::{Callback, Control, Progress, Trainer};
use crate::Error;
use indicatif::ProgressStyle;

/// A bar for each epoch on standard error, with loss, metrics and images per second.
///
/// ```
/// use hubel::prelude::*;
/// let fit = Fit::epochs(5).callback(ProgressBar::new());
/// ```
#[derive(Debug)]
pub struct ProgressBar {
    bar: indicatif::ProgressBar,
}

impl Default for ProgressBar {
    fn default() -> Self {
        Self::new()
    }
}

impl ProgressBar {
    /// Returns a bar that appears with the first step.
    pub fn new() -> Self {
        ProgressBar { bar: indicatif::ProgressBar::hidden() }
    }

    fn message(at: &Progress) -> String {
        let values: Vec<String> =
            at.values.iter().filter(|v| !v.0.contains('/')).map(|(name, v)| format!("{name} {v:.4}")).collect();
        format!("{:.0} images/s  {}", at.samples_per_s, values.join("  "))
    }

    fn start(&mut self, at: &Progress) {
        let template = format!("epoch {}/{} {{bar:24}} {{pos}}/{{len}} {{msg}}", at.epoch + 1, at.epochs);
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar = indicatif::ProgressBar::new(at.samples as u64).with_style(style.progress_chars("━╸ "));
    }
}

impl Callback for ProgressBar {
    fn step_end(&mut self, at: &Progress, _trainer: &mut Trainer) -> Result<Control, Error> {
        if self.bar.length().is_none() || self.bar.is_finished() {
            self.start(at);
        }
        if at.samples == 0 {
            self.bar.set_length(at.seen as u64);
        }
        self.bar.set_position(at.seen as u64);
        Ok(Control::Continue)
    }

    fn progress(&mut self, at: &Progress) {
        self.bar.set_message(Self::message(at));
    }

    fn epoch_end(&mut self, at: &Progress, _trainer: &mut Trainer) -> Result<Control, Error> {
        self.bar.set_position(at.seen as u64);
        self.bar.abandon_with_message(Self::message(at));
        if self.bar.is_hidden() {
            // Without a terminal, one line per epoch.
            eprintln!(
                "epoch {}/{} {}/{} {}",
                at.epoch + 1,
                at.epochs,
                at.seen,
                at.samples.max(at.seen),
                Self::message(at)
            );
        }
        Ok(Control::Continue)
    }
}
