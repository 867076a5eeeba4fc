//! Writing a session: frames as they came, what was found on them, and what the controller said.
//!
//! A frame waits a little for its result, so that both go into the same measurement when the window grid changes.

use super::error::{At, SessionError};
use super::h5::{Table, text, write_attribute, write_text};
use super::layout::{self, AckRow, GapRow};
use super::measurement::{Measurement, ReceivedFrame};
use super::stack::{Filing, Metadata, TEMPLATE};
use crate::config::InvalidSetting;
use crate::frame::Frame;
use ferrostem_proto::{ModelIds, ResultMessage};
use hdf5::File;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Frames that wait for their result; the oldest is written without one when there are more.
const MAX_WAITING: usize = 8;
/// Streams (source and channel) that have a measurement open; the one longest unused is closed when there are more.
const MAX_OPEN: usize = 16;
/// Numbers tried for `{n}` in a path.
const MAX_NUMBERED: u32 = 100_000;

/// What to do with an item when the recorder's queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// Leave it out and count it: recording never delays a frame (live).
    #[default]
    Drop,
    /// Wait for room: nothing is left out (lossless).
    Block,
}

/// How a session is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordSettings {
    /// Deflate level, 0 (none) to 9.
    pub compression_level: u8,
    /// Regroups bytes before compressing, which makes detector counts smaller.
    pub shuffle: bool,
    /// How often the file is brought up to date on disk, ms.
    pub flush_interval_ms: u64,
    /// Frames, results, … that may wait for the disk.
    pub queue_items: usize,
    pub when_full: WhenFull,
}

impl Default for RecordSettings {
    fn default() -> Self {
        Self {
            compression_level: 1,
            shuffle: true,
            flush_interval_ms: 1000,
            queue_items: 64,
            when_full: WhenFull::Drop,
        }
    }
}

impl RecordSettings {
    /// # Errors
    /// When a value is outside its range; the message begins with `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}.{name}");
        if self.compression_level > 9 {
            return Err(InvalidSetting::new(key("compression_level"), self.compression_level, "0 to 9"));
        }
        if !(10..=600_000).contains(&self.flush_interval_ms) {
            let expected = "10 to 600000 ms";
            return Err(InvalidSetting::new(key("flush_interval_ms"), self.flush_interval_ms, expected));
        }
        if !(1..=65_536).contains(&self.queue_items) {
            return Err(InvalidSetting::new(key("queue_items"), self.queue_items, "1 to 65536"));
        }
        Ok(())
    }
}

/// What a session says about the daemon that wrote it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionHeader {
    /// The resolved configuration, as TOML.
    pub config_toml: String,
    pub models: ModelIds,
    /// Unix nanoseconds.
    pub created_ns: u64,
}

/// Sequence numbers `first_seq .. first_seq + missing` that never came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gap {
    pub source: String,
    pub acquisition: String,
    pub first_seq: u64,
    pub missing: u64,
    pub t_ns: u64,
}

/// What a session came to hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordSummary {
    pub measurements: u64,
    pub frames: u64,
    pub results: u64,
    /// Results whose frame is not in the session, which have nowhere to go.
    pub orphan_results: u64,
}

/// Writes one session file.
pub struct Recorder {
    path: PathBuf,
    file: File,
    filing: Filing,
    /// The measurement that each stream is writing to, the longest unused first.
    open: Vec<Measurement>,
    waiting: VecDeque<ReceivedFrame>,
    acks: Table<AckRow>,
    gaps: Table<GapRow>,
    summary: RecordSummary,
}

impl Recorder {
    /// Creates the session at `path`, or at the first free number where `path` contains `{n}`.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn create(
        path: &Path,
        settings: &RecordSettings,
        header: &SessionHeader,
    ) -> Result<Self, SessionError> {
        let path = create_file(path)?;
        let place = || path.display().to_string();
        let file = File::open_rw(&path).at(place)?;
        let filing = Filing::new(&file, settings.compression_level, settings.shuffle)?;
        write_text(&file, "format", layout::FORMAT)?;
        write_attribute(&file, "format_version", &layout::FORMAT_VERSION)?;
        let metadata = Metadata::create(&file, layout::METADATA)?;
        metadata
            .text("ferrostem_version", env!("CARGO_PKG_VERSION"))?
            .number("created_ns", header.created_ns)?;
        for (network, model) in [("dcnn", &header.models.dcnn), ("fcnn", &header.models.fcnn)] {
            if let Some(model) = model {
                metadata
                    .text(&format!("{network}_name"), &model.name)?
                    .text(&format!("{network}_sha256"), &model.sha256)?;
            }
        }
        // A dataset, not an attribute: attributes end at 64 KiB.
        file.group(layout::METADATA)
            .and_then(|group| {
                let config = text(&header.config_toml);
                group
                    .new_dataset::<hdf5::types::VarLenUnicode>()
                    .create(layout::CONFIG)?
                    .write_scalar(&config)
            })
            .at(place)?;
        let acks = Table::create(&file, layout::ACKS, 64)?;
        let gaps = Table::create(&file, layout::GAPS, 64)?;
        file.flush().at(place)?;
        Ok(Self {
            path,
            file,
            filing,
            open: Vec::new(),
            waiting: VecDeque::new(),
            acks,
            gaps,
            summary: RecordSummary::default(),
        })
    }

    /// The file that is being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What has been written so far.
    pub const fn summary(&self) -> RecordSummary {
        self.summary
    }

    /// Takes a frame. It is written when its result comes, when a few later frames have come, or at the second flush.
    ///
    /// # Errors
    /// When the frame has no pixels, or writing fails.
    pub fn frame(&mut self, frame: &Frame) -> Result<(), SessionError> {
        let [rows, cols] = frame.raw.shape();
        if rows == 0 || cols == 0 {
            let place = format!("{}, frame {}", self.path.display(), frame.seq);
            return Err(SessionError::unexpected(place, "at least one pixel", format!("{rows} x {cols}")));
        }
        self.waiting.push_back(ReceivedFrame::from(frame));
        while self.waiting.len() > MAX_WAITING {
            self.write_oldest(None)?;
        }
        Ok(())
    }

    /// Takes the result of a frame that was taken before; one whose frame is not there is counted and left out.
    ///
    /// # Errors
    /// When its maps do not have the shape of their grid, or writing fails.
    pub fn result(&mut self, result: &ResultMessage) -> Result<(), SessionError> {
        let its_own =
            |frame: &ReceivedFrame| frame.seq == result.seq && frame.acquisition == result.acquisition;
        if let Some(position) = self.waiting.iter().position(its_own) {
            for _ in 0..position {
                self.write_oldest(None)?;
            }
            return self.write_oldest(Some(result));
        }
        let place = self.open.iter_mut().rev().find_map(|measurement| {
            let frame = measurement.awaiting(&result.acquisition, result.seq)?;
            measurement.fits_result(result).then_some((measurement, frame))
        });
        match place {
            Some((measurement, frame)) => {
                measurement.write_result(frame, result, &self.filing)?;
                self.summary.results += 1;
            }
            None => self.summary.orphan_results += 1,
        }
        Ok(())
    }

    /// Notes a controller's verdict on a candidate.
    ///
    /// # Errors
    /// When writing fails.
    pub fn ack(&mut self, candidate_id: u64, verdict: &str, t_ns: u64) -> Result<(), SessionError> {
        self.acks.append(&[AckRow { candidate_id, t_ns, verdict: text(verdict) }])?;
        Ok(())
    }

    /// Notes sequence numbers that never came.
    ///
    /// # Errors
    /// When writing fails.
    pub fn gap(&mut self, gap: &Gap) -> Result<(), SessionError> {
        self.gaps.append(&[GapRow {
            first_seq: gap.first_seq,
            missing: gap.missing,
            t_ns: gap.t_ns,
            source: text(&gap.source),
            acquisition: text(&gap.acquisition),
        }])?;
        Ok(())
    }

    /// Brings the file on disk up to date. A frame that still waits for its result is written at the next flush.
    ///
    /// # Errors
    /// When writing fails.
    pub fn flush(&mut self) -> Result<(), SessionError> {
        while self.waiting.front().is_some_and(|frame| frame.passed_over) {
            self.write_oldest(None)?;
        }
        for frame in &mut self.waiting {
            frame.passed_over = true;
        }
        self.bring_up_to_date()
    }

    /// Writes what waits, and closes the file.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> Result<RecordSummary, SessionError> {
        let mut outcome = Ok(());
        while !self.waiting.is_empty() {
            outcome = outcome.and(self.write_oldest(None));
        }
        outcome.and(self.bring_up_to_date())?;
        Ok(self.summary)
    }

    fn bring_up_to_date(&mut self) -> Result<(), SessionError> {
        self.open.iter_mut().try_for_each(Measurement::complete)?;
        self.file.flush().at(|| self.path.display().to_string())
    }

    /// Writes the frame that has waited longest, with its result if it has come. A frame that cannot be written is
    /// given up, so that the ones behind it get their turn.
    fn write_oldest(&mut self, result: Option<&ResultMessage>) -> Result<(), SessionError> {
        let Some(frame) = self.waiting.pop_front() else { return Ok(()) };
        let index = match self.open.iter().position(|measurement| measurement.stream == frame.stream) {
            Some(index)
                if self.open[index].fits(&frame)
                    && result.is_none_or(|result| self.open[index].fits_result(result)) =>
            {
                index
            }
            unfit => {
                let mut closing = match unfit {
                    Some(index) => Some(self.open.remove(index)),
                    None if self.open.len() == MAX_OPEN => Some(self.open.remove(0)),
                    None => None,
                };
                if let Some(measurement) = &mut closing {
                    measurement.complete()?;
                }
                let number = self.summary.measurements;
                self.summary.measurements += 1;
                let measurement = Measurement::create(&self.file, number as usize, &frame, &self.filing)?;
                self.open.push(measurement);
                self.open.len() - 1
            }
        };
        // To the end, where the most recently used are.
        let measurement = self.open.remove(index);
        self.open.push(measurement);
        let Some(measurement) = self.open.last_mut() else { return Ok(()) };
        let number = measurement.append(&frame, self.summary.frames)?;
        self.summary.frames += 1;
        if let Some(result) = result {
            measurement.write_result(number, result, &self.filing)?;
            self.summary.results += 1;
        }
        Ok(())
    }
}

/// Creates an empty session at `path`, or at the first free number for its `{n}`, without overwriting anything.
fn create_file(path: &Path) -> Result<PathBuf, SessionError> {
    let template = path.to_string_lossy();
    if !template.contains("{n}") {
        return create_new(path.to_owned());
    }
    for number in 0..MAX_NUMBERED {
        match create_new(PathBuf::from(template.replace("{n}", &format!("{number:03}")))) {
            Err(SessionError::Exists { .. }) => {}
            other => return other,
        }
    }
    Err(SessionError::Exists { path: path.to_owned() })
}

pub(super) fn create_new(path: PathBuf) -> Result<PathBuf, SessionError> {
    let created = OpenOptions::new().write(true).create_new(true).open(&path);
    match created.and_then(|mut file| file.write_all(TEMPLATE)) {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(SessionError::Exists { path }),
        Err(source) => Err(SessionError::Io { path, source }),
    }
}
