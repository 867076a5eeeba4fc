//! The log of a run: `step,loss,smoothed_loss,learning_rate`, one line a step.

use super::TrainError;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

const HEADER: &str = "step,loss,smoothed_loss,learning_rate\n";

/// See the module's documentation.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Of the last step; NaN before the first.
    pub smoothed: f32,
}

impl Log {
    /// The log at `path` of a run that goes on at step `first`: lines of steps that are made again are cut off, so that every step
    /// has one.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path, first: u64) -> Result<Self, TrainError> {
        let error = |source| TrainError::File { path: path.to_owned(), source };
        let text = match fs::read_to_string(path) {
            Err(missing) if missing.kind() == ErrorKind::NotFound => String::new(),
            text => text.map_err(error)?,
        };
        let (mut kept, mut smoothed) = (0, f32::NAN);
        if let Some(lines) = text.strip_prefix(HEADER) {
            kept = HEADER.len();
            let rows = lines.split_inclusive('\n').map_while(|line| Some((line, row(line)?)));
            for (line, (_, value)) in rows.take_while(|(_, (step, _))| *step < first) {
                kept += line.len();
                smoothed = value;
            }
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(error)?;
        file.set_len(kept as u64).map_err(error)?;
        if kept == 0 {
            file.write_all(HEADER.as_bytes()).map_err(error)?;
        }
        Ok(Self { path: path.to_owned(), file, smoothed })
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, step: u64, loss: f32, rate: f64) -> Result<(), TrainError> {
        self.smoothed = if self.smoothed.is_nan() { loss } else { 0.97 * self.smoothed + 0.03 * loss };
        let line = format!("{step},{loss},{},{rate}\n", self.smoothed);
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| TrainError::File { path: self.path.clone(), source })
    }
}

/// Step and smoothed loss of a whole line.
fn row(line: &str) -> Option<(u64, f32)> {
    let mut fields = line.strip_suffix('\n')?.split(',');
    Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_back_to_the_step_that_is_made_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        let written = |first: u64, steps: std::ops::Range<u64>| {
            let mut log = Log::open(&path, first).unwrap();
            for step in steps {
                log.add(step, 1.0 / (step + 1) as f32, 0.1).unwrap();
            }
            fs::read_to_string(&path).unwrap()
        };
        let straight = written(0, 0..6);
        assert_eq!(straight.lines().count(), 7);
        assert!(straight.starts_with(HEADER) && straight.contains("\n0,1,1,0.1\n"), "{straight}");
        // Steps 3 to 5 once more, and after a kill in the middle of a line.
        assert_eq!(written(3, 3..6), straight);
        fs::write(&path, &straight[..straight.len() - 4]).unwrap();
        assert_eq!(written(5, 5..6), straight);
        // From the beginning, and with a log that was taken away.
        assert_eq!(written(0, 0..6), straight);
        fs::remove_file(&path).unwrap();
        assert_eq!(written(0, 0..6), straight);
    }
}
