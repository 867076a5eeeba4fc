//! Writing a session: frames as they came, what was found on them, and what the controller said.
//!
//! A frame waits a little for its result, so that both go into the same measurement when the window grid changes.

use super::error::{At, SessionError};
use super::file::{self, SessionFile};
use super::h5::{Table, text, write_attribute, write_text};
use super::layout::{self, AckRow, EventRow, GapRow};
use super::measurement::{Measurement, ReceivedFrame};
use super::own;
use super::recording::{Gap, RecordSettings, RecordSummary, SessionEvent, SessionHeader};
use super::stack::{Filing, Metadata};
use crate::frame::Frame;
use ferrostem_proto::ResultMessage;
use hdf5::{File, Group};
use std::collections::VecDeque;
use std::path::Path;

/// Frames that wait for their result; the oldest is written without one when there are more.
const MAX_WAITING: usize = 8;
/// Streams (source and channel) that have a measurement open; the one longest unused is closed when there are more.
const MAX_OPEN: usize = 16;

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
        let staged = session.stage()?;
        write_header(&staged, before.segments, header)?;
        session.link(&staged, "")?;
        drop(staged);
        session.enter_swmr()?;
        Self::over(session, filing, before)
    }

    fn over(session: SessionFile, filing: Filing, before: Before) -> Result<Self, SessionError> {
        let file = session.get()?;
        Ok(Self {
            filing,
            open: Vec::new(),
            waiting: VecDeque::new(),
            acks: Table::open(file, layout::ACKS)?,
            gaps: Table::open(file, layout::GAPS)?,
            events: Table::open(file, layout::EVENTS)?,
            before,
            summary: RecordSummary::default(),
            session,
        })
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
        self.write_result(index, frame, result)
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

    /// Adds to the group at `parent` what `build` puts into an empty one, for which the file leaves its mode for a moment.
    fn add_objects(
        &mut self,
        parent: &str,
        build: impl FnOnce(&mut Self, &Group) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        self.open.iter_mut().try_for_each(Measurement::complete)?;
        self.session.leave_swmr()?;
        let staged = self.session.stage()?;
        // Whatever comes of it, the rest of the session goes on.
        let added = build(self, &staged).and_then(|()| self.session.link(&staged, parent));
        drop(staged);
        // What went wrong first says more than what follows from it.
        added.and(self.reopen())
    }

    /// Takes up everything in a file that was opened anew.
    fn reopen(&mut self) -> Result<(), SessionError> {
        let file = self.session.get()?;
        self.acks.reopen(file)?;
        self.gaps.reopen(file)?;
        self.events.reopen(file)?;
        self.open.iter_mut().try_for_each(|measurement| measurement.reopen(file))?;
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
                self.add_objects("", |recorder, staged| recorder.begin_measurement(staged, &frame, result))?;
                self.open.len() - 1
            }
        };
        // To the end, where the most recently used are.
        let mut measurement = self.open.remove(index);
        let appended = measurement.append(&frame, self.before.frames + self.summary.frames);
        self.open.push(measurement);
        let number = appended?;
        self.summary.frames += 1;
        result.map_or(Ok(()), |result| self.write_result(self.open.len() - 1, number, result))
    }

    /// Writes what was found on frame `frame` of the `index`-th open measurement.
    fn write_result(
        &mut self,
        index: usize,
        frame: usize,
        result: &ResultMessage,
    ) -> Result<(), SessionError> {
        if self.open[index].lacks_maps_of(result) {
            let parent = self.open[index].path().to_owned();
            self.add_objects(&parent, |recorder, staged| {
                recorder.open[index].create_maps_of(staged, result, &recorder.filing)
            })?;
        }
        self.open[index].write_result(frame, result)?;
        self.summary.results += 1;
        Ok(())
    }

    fn begin_measurement(
        &mut self,
        staged: &Group,
        frame: &ReceivedFrame,
        result: Option<&ResultMessage>,
    ) -> Result<(), SessionError> {
        let number = self.before.measurements + self.summary.measurements;
        let mut measurement = Measurement::create(staged, number as usize, frame, &self.filing)?
            .of_segment(self.before.segments)?;
        if let Some(result) = result {
            measurement.create_first_maps(result, &self.filing)?;
        }
        self.open.push(measurement);
        self.summary.measurements += 1;
        Ok(())
    }
}

/// Writes what is known about the daemon, for the recording `segment` of this file.
fn write_header(group: &Group, segment: u32, header: &SessionHeader) -> Result<(), SessionError> {
    let name = layout::metadata_name(segment);
    let metadata = Metadata::create(group, &name)?;
    metadata.text("ferrostem_version", env!("CARGO_PKG_VERSION"))?.number("created_ns", header.created_ns)?;
    for (network, model) in [("dcnn", &header.models.dcnn), ("fcnn", &header.models.fcnn)] {
        if let Some(model) = model {
            metadata
                .text(&format!("{network}_name"), &model.name)?
                .text(&format!("{network}_sha256"), &model.sha256)?;
        }
    }
    // A dataset, not an attribute: attributes end at 64 KiB.
    group
        .group(&name)
        .and_then(|group| {
            let config = text(&header.config_toml);
            group.new_dataset::<hdf5::types::VarLenUnicode>().create(layout::CONFIG)?.write_scalar(&config)
        })
        .at(|| format!("{}/{name}", group.filename()))
}
