//! The live view in a terminal: what the daemon sees, how fast, and where it would look next.
//!
//! [`ViewState`] is a plain value that whoever has results fills; [`LiveView`] draws it at most ten times a second and
//! listens for the keys that end it. Nothing else may write to the terminal while a view is open: the newest log line
//! belongs into [`ViewState::log`].

mod screen;
mod state;

pub use screen::{ColourDepth, Screen};
pub use state::{DirectionMap, HISTOGRAM_BIN_PM, HISTOGRAM_BINS, PolarizationSummary, ViewState};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// No view changes faster than this.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// What the person at the keyboard wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Wish {
    Continue,
    /// `q`, Esc or Ctrl-C.
    Quit,
}

/// The terminal while it belongs to the view; given back when dropped and before a panic is reported.
pub struct LiveView {
    terminal: DefaultTerminal,
    depth: ColourDepth,
    drawn: Option<Instant>,
}

impl LiveView {
    /// Takes over the terminal.
    ///
    /// # Errors
    /// When standard output is no terminal, or the terminal refuses.
    pub fn open() -> io::Result<Self> {
        if !io::stdout().is_terminal() {
            let reason = "the live view needs a terminal, and standard output is none";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        // When only the second half of the set-up fails, the first must not stay behind.
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Self { terminal, depth: ColourDepth::from_environment(), drawn: None })
    }

    /// Handles the keys pressed since the last call, and draws `state` unless it was drawn less than a tenth of a second
    /// ago. Never waits; call it at least every tenth of a second, so that keys are answered.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn update(&mut self, state: &ViewState) -> io::Result<Wish> {
        let mut resized = false;
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if ends_view(key) => return Ok(Wish::Quit),
                Event::Resize(..) => resized = true,
                _ => {}
            }
        }
        let now = Instant::now();
        if resized || self.drawn.is_none_or(|drawn| now - drawn >= REDRAW_INTERVAL) {
            let screen = Screen { state, depth: self.depth };
            self.terminal.draw(|frame| frame.render_widget(screen, frame.area()))?;
            self.drawn = Some(now);
        }
        Ok(Wish::Continue)
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn ends_view(key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => key.is_press(),
        KeyCode::Char('c') => key.is_press() && key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
