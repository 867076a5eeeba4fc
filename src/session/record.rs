//! Writing a session: frames as they came, what was found on them, and what the controller said.
//!
//! A frame waits a little for its result, so that both go into the same measurement when the window grid changes.

use super::error::{At, SessionError};
use super::file::{self, SessionFile};
use super::h5::{Table, text, write_attribute, write_text};
use super::layout::{self, AckRow, EventRow, GapRow};
use super::measurement::{Measurement, ReceivedFrame};
use super::own;
use super::stack::{Filing, Metadata};
use crate::config::InvalidSetting;
use crate::frame::Frame;
use ferrostem_proto::{ModelIds, ResultMessage};
use hdf5::File;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::Path;

/// Frames that wait for their result; the oldest is written without one when there are more.
const MAX_WAITING: usize = 8;
/// Streams (source and channel) that have a measurement open; the one longest unused is closed when there are more.
const MAX_OPEN: usize = 16;

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

/// Something that happened between frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionEvent {
    pub t_ns: u64,
    /// `begin` or `end` of an acquisition, `configure`, `load_model`, `frames_dropped`.
    pub kind: String,
    /// The source that it came from, or nothing.
    pub source: String,
    pub acquisition: String,
    /// What it says, a JSON object.
    pub detail: String,
}

/// Writes one session file.
pub struct Recorder {
    session: SessionFile,
    filing: Filing,
    /// The measurement that each stream is writing to, the longest unused first.
    open: Vec<Measurement>,
    waiting: VecDeque<ReceivedFrame>,
    acks: Table<AckRow>,
    gaps: Table<GapRow>,
    events: Table<EventRow>,
    /// What the file held when it was taken up.
    before: Before,
    summary: RecordSummary,
}

/// What earlier recordings left in a file.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    /// Recordings, each with its own metadata.
    segments: u32,
    measurements: u64,
    frames: u64,
}

impl Before {
    fn read(file: &File) -> Result<Self, SessionError> {
        let named = |segment: &u32| file.link_exists(&layout::metadata_name(*segment));
        Ok(Self {
            segments: (0..).take_while(named).count() as u32,
            measurements: own::measurement_numbers(file)?.last().map_or(0, |last| last + 1),
            frames: own::next_order(file)?,
        })
    }
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
        let (session, filing) = SessionFile::create(path, |file| {
            let filing = Filing::new(file, settings.compression_level, settings.shuffle)?;
            write_text(file, "format", layout::FORMAT)?;
            write_attribute(file, "format_version", &layout::FORMAT_VERSION)?;
            write_text(file, "NX_class", "NXroot")?;
            write_text(file, "default", &layout::measurement_name(0))?;
            write_header(file, 0, header)?;
            Table::<AckRow>::create(file, layout::ACKS, 64)?;
            Table::<GapRow>::create(file, layout::GAPS, 64)?;
            Table::<EventRow>::create(file, layout::EVENTS, 64)?;
            Ok(filing)
        })?;
        Self::over(session, filing, Before::default())
    }

    /// Takes up the session at `path`, finished or cut short, and adds to it: a new segment with its own metadata and
    /// measurements, behind all that is there.
    ///
    /// # Errors
    /// When it is no session, is being written by another process, or cannot be written.
    pub fn append(
        path: &Path,
        settings: &RecordSettings,
        header: &SessionHeader,
    ) -> Result<Self, SessionError> {
        let (_template, filing) =
            file::draft(path, |file| Filing::new(file, settings.compression_level, settings.shuffle))?;
        let (session, before) =
            SessionFile::append(path, |path| own::open_recorded(path).map(drop), Before::read)?;
        write_header(session.get()?, before.segments, header)?;
        Self::over(session, filing, before)
    }

    fn over(session: SessionFile, filing: Filing, before: Before) -> Result<Self, SessionError> {
        let file = session.get()?;
        let recorder = Self {
            filing,
            open: Vec::new(),
            waiting: VecDeque::new(),
            acks: Table::open(file, layout::ACKS)?,
            gaps: Table::open(file, layout::GAPS)?,
            events: Table::open(file, layout::EVENTS)?,
            before,
            summary: RecordSummary::default(),
            session,
        };
        recorder.session.enter_swmr()?;
        Ok(recorder)
    }

    /// The file that is being written.
    pub fn path(&self) -> &Path {
        self.session.path()
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
            let place = format!("{}, frame {}", self.path().display(), frame.seq);
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
        let place = self.open.iter().enumerate().rev().find_map(|(index, measurement)| {
            let frame = measurement.awaiting(&result.acquisition, result.seq)?;
            measurement.fits_result(result).then_some((index, frame))
        });
        let Some((index, frame)) = place else {
            self.summary.orphan_results += 1;
            return Ok(());
        };
        if self.open[index].lacks_maps_of(result) {
            self.add_objects(|recorder, _| recorder.open[index].create_maps_of(result, &recorder.filing))?;
        }
        self.open[index].write_result(frame, result)?;
        self.summary.results += 1;
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

    /// Notes something that happened between frames.
    ///
    /// # Errors
    /// When writing fails.
    pub fn event(&mut self, event: &SessionEvent) -> Result<(), SessionError> {
        self.events.append(&[EventRow {
            t_ns: event.t_ns,
            kind: text(&event.kind),
            source: text(&event.source),
            acquisition: text(&event.acquisition),
            detail: text(&event.detail),
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
        self.session.close()?;
        Ok(self.summary)
    }

    fn bring_up_to_date(&mut self) -> Result<(), SessionError> {
        self.open.iter_mut().try_for_each(Measurement::complete)?;
        self.session.flush()
    }

    /// Adds groups or datasets, for which the file leaves its mode for a moment.
    fn add_objects(
        &mut self,
        add: impl FnOnce(&mut Self, &File) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        self.open.iter_mut().try_for_each(Measurement::complete)?;
        let file = self.session.leave_swmr()?.clone();
        self.acks.reopen(&file)?;
        self.gaps.reopen(&file)?;
        self.events.reopen(&file)?;
        self.open.iter_mut().try_for_each(|measurement| measurement.reopen(&file))?;
        add(self, &file)?;
        drop(file);
        self.session.enter_swmr()
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
                self.add_objects(|recorder, file| recorder.begin_measurement(file, &frame, result))?;
                self.open.len() - 1
            }
        };
        // To the end, where the most recently used are.
        let measurement = self.open.remove(index);
        self.open.push(measurement);
        let Some(measurement) = self.open.last_mut() else { return Ok(()) };
        let number = measurement.append(&frame, self.before.frames + self.summary.frames)?;
        self.summary.frames += 1;
        let Some(result) = result else { return Ok(()) };
        if measurement.lacks_maps_of(result) {
            self.add_objects(|recorder, _| match recorder.open.last_mut() {
                Some(measurement) => measurement.create_maps_of(result, &recorder.filing),
                None => Ok(()),
            })?;
        }
        if let Some(measurement) = self.open.last_mut() {
            measurement.write_result(number, result)?;
            self.summary.results += 1;
        }
        Ok(())
    }

    fn begin_measurement(
        &mut self,
        file: &File,
        frame: &ReceivedFrame,
        result: Option<&ResultMessage>,
    ) -> Result<(), SessionError> {
        let number = self.before.measurements + self.summary.measurements;
        let mut measurement = Measurement::create(file, number as usize, frame, &self.filing)?
            .of_segment(self.before.segments)?;
        if let Some(result) = result {
            measurement.create_maps_of(result, &self.filing)?;
        }
        self.open.push(measurement);
        self.summary.measurements += 1;
        Ok(())
    }
}

/// Writes what is known about the daemon, for the recording `segment` of this file.
fn write_header(file: &File, segment: u32, header: &SessionHeader) -> Result<(), SessionError> {
    let name = layout::metadata_name(segment);
    let metadata = Metadata::create(file, &name)?;
    metadata.text("ferrostem_version", env!("CARGO_PKG_VERSION"))?.number("created_ns", header.created_ns)?;
    for (network, model) in [("dcnn", &header.models.dcnn), ("fcnn", &header.models.fcnn)] {
        if let Some(model) = model {
            metadata
                .text(&format!("{network}_name"), &model.name)?
                .text(&format!("{network}_sha256"), &model.sha256)?;
        }
    }
    // A dataset, not an attribute: attributes end at 64 KiB.
    file.group(&name)
        .and_then(|group| {
            let config = text(&header.config_toml);
            group.new_dataset::<hdf5::types::VarLenUnicode>().create(layout::CONFIG)?.write_scalar(&config)
        })
        .at(|| format!("{}/{name}", file.filename()))
}
