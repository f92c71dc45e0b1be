//! Signs of life for what takes longer than a second, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A spinner with a text; nothing is drawn where stderr is no terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn start(text: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        bar.set_style(style.expect("the template is well formed"));
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// A bar of bytes, once it is known how many there are.
    pub(super) fn transfer(text: &str) -> Self {
        let progress = Self::start(text);
        let style =
            ProgressStyle::with_template("{spinner} {msg} {wide_bar} {bytes}/{total_bytes} ({elapsed})");
        progress.0.set_style(style.expect("the template is well formed"));
        progress
    }

    /// So many bytes of so many are there.
    pub(super) fn at(&self, bytes: u64, of: u64) {
        self.0.set_length(of);
        self.0.set_position(bytes);
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
