//! From the parts of one message to a frame, with what a source remembers in between. No clock, no socket.

use super::IngestError;
use super::decode::decode;
use super::sequence::{SequenceTracker, Step};
use super::settings::{PartialFrames, SourceSettings};
use super::validate::validate;
use crate::frame::Frame;
use bytes::Bytes;
use ferrostem_proto::{Bracket, FrameMessage, FrameState, FramesMessage, Limits};

/// What a message was.
#[derive(Debug, Clone)]
pub enum IntakeEvent {
    /// A frame to process; `step` is `None` for a partial one, whose number will come again.
    Frame {
        frame: Box<Frame>,
        step: Option<Step>,
    },
    /// A partial frame where only complete ones are asked for.
    PartialSkipped,
    Begin(Bracket),
    End(Bracket),
}

/// One source's memory.
#[derive(Debug)]
pub struct Intake {
    settings: SourceSettings,
    limits: Limits,
    sequence: SequenceTracker,
    /// Between `begin` and `end`.
    acquisition: Option<String>,
    /// For frames of the pyzmq recipe that have no number.
    next_seq: u64,
}

impl Intake {
    pub fn new(settings: SourceSettings) -> Self {
        let limits = settings.limits();
        Self { settings, limits, sequence: SequenceTracker::default(), acquisition: None, next_seq: 0 }
    }

    pub const fn settings(&self) -> &SourceSettings {
        &self.settings
    }

    /// Takes in one message that was received at `received_ns`.
    ///
    /// # Errors
    /// Where it is no message, or no usable frame. The source goes on as if it had not been.
    pub fn take(&mut self, parts: &[Bytes], received_ns: u64) -> Result<IntakeEvent, IngestError> {
        match decode(parts, self.settings.encoding, self.next_seq, &self.limits)? {
            FramesMessage::Frame(message) => self.take_frame(*message, received_ns),
            FramesMessage::Begin(bracket) => {
                self.sequence.begin(&bracket.acquisition);
                self.acquisition = Some(bracket.acquisition.clone());
                self.next_seq = 0;
                Ok(IntakeEvent::Begin(bracket))
            }
            FramesMessage::End(bracket) => {
                self.acquisition = None;
                Ok(IntakeEvent::End(bracket))
            }
        }
    }

    fn take_frame(&mut self, message: FrameMessage, received_ns: u64) -> Result<IntakeEvent, IngestError> {
        let partial = message.state == Some(FrameState::Partial);
        if partial && self.settings.partial == PartialFrames::Skip {
            return Ok(IntakeEvent::PartialSkipped);
        }
        let acquisition = self.acquisition.as_deref().unwrap_or(&self.settings.acquisition);
        let seq = message.seq;
        let named = message.acquisition.clone();
        let frame = validate(message, &self.settings, acquisition, received_ns).map_err(|source| {
            let acquisition = named.unwrap_or_else(|| acquisition.to_owned());
            IngestError::Frame { acquisition, seq, source }
        })?;
        let step = (!partial).then(|| {
            self.next_seq = seq.wrapping_add(1);
            self.sequence.observe(&frame.acquisition, seq)
        });
        Ok(IntakeEvent::Frame { frame: Box::new(frame), step })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::validate::InvalidFrame;
    use ferrostem_proto::{PixelArray, cbor};

    fn native(message: &FramesMessage) -> Vec<Bytes> {
        vec![cbor::encode_frames(message).unwrap()]
    }

    fn recipe(extra: &str) -> Vec<Bytes> {
        let header = format!(r#"{{"dtype":"uint8","shape":[32,32]{extra}}}"#);
        vec![header.into(), vec![1; 1024].into()]
    }

    fn frame(intake: &mut Intake, parts: &[Bytes]) -> (String, u64, Option<Step>) {
        match intake.take(parts, 1).unwrap() {
            IntakeEvent::Frame { frame, step } => (frame.acquisition, frame.seq, step),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn frames_without_a_number_are_numbered() {
        let mut intake = Intake::new(SourceSettings::default());
        let of = |seq, step| ("unnamed".to_owned(), seq, Some(step));
        assert_eq!(frame(&mut intake, &recipe("")), of(0, Step::First));
        assert_eq!(frame(&mut intake, &recipe("")), of(1, Step::Next));
        assert_eq!(frame(&mut intake, &recipe(r#","seq":7"#)), of(7, Step::Gap { missing: 5 }));
        assert_eq!(frame(&mut intake, &recipe("")), of(8, Step::Next));
    }

    #[test]
    fn begin_and_end_name_what_lies_between() {
        let mut intake = Intake::new(SourceSettings::default());
        frame(&mut intake, &recipe(""));
        let bracket = Bracket { acquisition: "BFO".to_owned(), ..Bracket::default() };
        let begin = native(&FramesMessage::Begin(bracket.clone()));
        assert!(matches!(intake.take(&begin, 1), Ok(IntakeEvent::Begin(found)) if found == bracket));
        assert_eq!(frame(&mut intake, &recipe("")), ("BFO".to_owned(), 0, Some(Step::Restart)));
        assert_eq!(frame(&mut intake, &recipe(r#","acquisition":"own""#)).0, "own");
        assert!(matches!(intake.take(&native(&FramesMessage::End(bracket)), 1), Ok(IntakeEvent::End(_))));
        assert_eq!(frame(&mut intake, &recipe("")).0, "unnamed");
    }

    #[test]
    fn partial_frames_are_skipped_or_precede_the_complete_one() {
        let partial = recipe(r#","seq":0,"state":"partial","valid_rows":[0,9]"#);
        let complete = recipe(r#","seq":0"#);
        let mut intake = Intake::new(SourceSettings::default());
        assert!(matches!(intake.take(&partial, 1), Ok(IntakeEvent::PartialSkipped)));
        assert_eq!(frame(&mut intake, &complete).2, Some(Step::First));

        let settings = SourceSettings { partial: PartialFrames::Process, ..SourceSettings::default() };
        let mut intake = Intake::new(settings);
        assert_eq!(frame(&mut intake, &partial).2, None);
        assert_eq!(frame(&mut intake, &complete).2, Some(Step::First));
        let next_partial = recipe(r#","seq":1,"state":"partial","valid_rows":[0,9]"#);
        assert_eq!(frame(&mut intake, &next_partial).2, None);
        assert_eq!(frame(&mut intake, &recipe(r#","seq":1"#)).2, Some(Step::Next));
    }

    #[test]
    fn a_bad_frame_leaves_no_trace() {
        let mut intake = Intake::new(SourceSettings::default());
        frame(&mut intake, &recipe(r#","seq":4"#));
        let small = FrameMessage::new(100, PixelArray::from_f32([1, 1], &[1.0]).unwrap());
        let error = intake.take(&native(&FramesMessage::Frame(Box::new(small))), 1).unwrap_err();
        assert!(matches!(
            error,
            IngestError::Frame { seq: 100, source: InvalidFrame::TooSmall { rows: 1, .. }, .. }
        ));
        assert!(intake.take(&[Bytes::from_static(b"\x00")], 1).is_err());
        assert!(intake.take(&[], 1).is_err());
        assert_eq!(frame(&mut intake, &recipe("")), ("unnamed".to_owned(), 5, Some(Step::Next)));
    }
}
