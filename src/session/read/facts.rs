//! What a file says about its images beyond their pixels: axes, calibration, times, scan.

use super::units::{duration_ns, length_pm};
use ferrostem_proto::FrameMessage;

/// Steps along an axis may differ by this fraction of their mean before it counts as not uniform.
const STEP_TOLERANCE: f64 = 0.01;

/// One axis of a dataset, as its file describes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::session) struct Axis {
    pub(in crate::session) name: String,
    pub(in crate::session) units: String,
    /// From one element to the next, in `units`; `None` where the file does not say or the steps differ.
    pub(in crate::session) step: Option<f64>,
}

impl Axis {
    /// Where the elements are, from their positions; two positions stand for a uniform axis of any length.
    pub(in crate::session) fn uniform_step(positions: &[f64]) -> Option<f64> {
        let (first, last) = (positions.first()?, positions.last()?);
        let step = (last - first) / (positions.len() - 1) as f64;
        let uniform = positions
            .windows(2)
            .all(|pair| ((pair[1] - pair[0]) - step).abs() <= STEP_TOLERANCE * step.abs());
        (step.is_finite() && step != 0.0 && uniform).then_some(step)
    }

    fn size_pm(&self) -> Option<f64> {
        self.step.zip(length_pm(&self.units)).map(|(step, pm)| step.abs() * pm)
    }

    fn describe(&self) -> String {
        let step = self.step.map_or_else(|| "no uniform step".to_owned(), |step| step.to_string());
        let units = if self.units.is_empty() { "(no units)" } else { &self.units };
        format!("{step} {units}")
    }

    /// Times of frames along this axis.
    pub(in crate::session) fn timing(&self) -> Timing {
        let every = self.step.zip(duration_ns(&self.units)).map(|(step, ns)| step * ns);
        Timing {
            start_ns: None,
            frames: every.filter(|ns| *ns > 0.0).map_or(FrameTimes::Unknown, FrameTimes::Every),
        }
    }
}

/// Which of the axes are the rows and the columns, where two are named `y` and `x`.
pub(in crate::session) fn named_rows_and_cols(axes: &[Axis]) -> Option<[usize; 2]> {
    let find = |name: &str| axes.iter().position(|axis| axis.name.eq_ignore_ascii_case(name));
    find("y").zip(find("x")).map(|(row, col)| [row, col])
}

/// The size of a pixel and where the file says it, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::session) struct Calibration {
    /// `[row, col]`, above 0.
    pub(in crate::session) pixel_size_pm: Option<[f64; 2]>,
    pub(in crate::session) source: String,
}

impl Calibration {
    pub(in crate::session) fn none(reason: impl Into<String>) -> Self {
        Self { pixel_size_pm: None, source: format!("none: {}", reason.into()) }
    }

    /// `pixel_size_pm` as `source` says, unless it is not a size.
    pub(in crate::session) fn new(pixel_size_pm: [f64; 2], source: impl Into<String>) -> Self {
        let source = source.into();
        if pixel_size_pm.iter().all(|size| size.is_finite() && *size > 0.0) {
            return Self { pixel_size_pm: Some(pixel_size_pm), source };
        }
        Self::none(format!("{source} is no size"))
    }

    /// From the axes along the rows and along the columns, which `place` describes. A step may be negative: the axis
    /// then runs backwards, and the pixels stay in the order of the file.
    pub(in crate::session) fn of_axes(row: &Axis, col: &Axis, place: &str) -> Self {
        let source = format!("{place}: row {}, col {}", row.describe(), col.describe());
        match row.size_pm().zip(col.size_pm()) {
            Some((row, col)) => Self::new([row, col], source),
            None => Self::none(format!("{source}, not two lengths")),
        }
    }
}

/// When the frames of a stack were taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::session) struct Timing {
    /// Unix time of the first frame.
    pub(in crate::session) start_ns: Option<u64>,
    pub(in crate::session) frames: FrameTimes,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::session) enum FrameTimes {
    #[default]
    Unknown,
    /// ns from one frame to the next.
    Every(f64),
    /// ns since the first frame.
    Listed(Vec<u64>),
}

impl FrameTimes {
    /// From times of any origin, ns; unknown where they run backwards or are no numbers.
    pub(in crate::session) fn since_first(times_ns: &[f64]) -> Self {
        let Some(&first) = times_ns.first() else { return Self::Unknown };
        let since = |&time: &f64| (time.is_finite() && time >= first).then(|| (time - first).round() as u64);
        times_ns.iter().map(since).collect::<Option<Vec<u64>>>().map_or(Self::Unknown, Self::Listed)
    }
}

impl Timing {
    /// Unix ns of frame `index`, or ns since the first where the file has no date.
    pub(in crate::session) fn at(&self, index: usize) -> Option<u64> {
        let since = match &self.frames {
            FrameTimes::Every(ns) => (index as f64 * ns).round() as u64,
            FrameTimes::Listed(times) => *times.get(index)?,
            FrameTimes::Unknown if index == 0 && self.start_ns.is_some() => 0,
            FrameTimes::Unknown => return None,
        };
        Some(self.start_ns.unwrap_or(0).saturating_add(since))
    }
}

/// Everything that one file says about all of its frames.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::session) struct Facts {
    pub(in crate::session) calibration: Calibration,
    pub(in crate::session) timing: Timing,
    pub(in crate::session) channel: Option<String>,
    /// As the file states it.
    pub(in crate::session) rotation_rad: Option<f64>,
    pub(in crate::session) dwell_us: Option<f64>,
    /// `[y, x]`.
    pub(in crate::session) center_nm: Option<[f64; 2]>,
}

impl Facts {
    pub(in crate::session) fn new(calibration: Calibration) -> Self {
        Self {
            calibration,
            timing: Timing::default(),
            channel: None,
            rotation_rad: None,
            dwell_us: None,
            center_nm: None,
        }
    }

    /// `message` with all that is known; numbers that cannot be are left out.
    pub(in crate::session) fn label(&self, message: FrameMessage, index: usize) -> FrameMessage {
        FrameMessage {
            t_start_ns: self.timing.start_ns.and_then(|_| self.timing.at(index)),
            pixel_size_pm: self.calibration.pixel_size_pm,
            channel: self.channel.clone(),
            rotation_rad: self.rotation_rad.filter(|angle| angle.is_finite()),
            dwell_us: self.dwell_us.filter(|time| time.is_finite() && *time > 0.0),
            center_nm: self.center_nm.filter(|center| center.iter().all(|nm| nm.is_finite())),
            ..message
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(units: &str, step: f64) -> Axis {
        Axis { name: String::new(), units: units.to_owned(), step: Some(step) }
    }

    #[test]
    fn pixels_need_not_be_square_and_axes_may_run_backwards() {
        let calibration = Calibration::of_axes(&axis("nm", 0.02), &axis("Å", -0.15), "here");
        assert_eq!(calibration.pixel_size_pm, Some([20.0, 15.0]));
        assert_eq!(calibration.source, "here: row 0.02 nm, col -0.15 Å");
    }

    #[test]
    fn what_is_no_length_is_no_pixel_size() {
        for (row, col) in [
            (axis("1/nm", 0.1), axis("1/nm", 0.1)),
            (axis("nm", 0.1), axis("", 1.0)),
            (axis("nm", f64::NAN), axis("nm", 0.1)),
            (axis("nm", 0.0), axis("nm", 0.1)),
            (Axis { step: None, ..axis("nm", 0.1) }, axis("nm", 0.1)),
        ] {
            let calibration = Calibration::of_axes(&row, &col, "here");
            assert_eq!(calibration.pixel_size_pm, None);
            assert!(calibration.source.starts_with("none: here: row "), "{}", calibration.source);
        }
    }

    #[test]
    fn steps_must_agree() {
        assert_eq!(Axis::uniform_step(&[1.0, 3.0]), Some(2.0));
        assert_eq!(Axis::uniform_step(&[3.0, 2.0, 1.0]), Some(-1.0));
        assert_eq!(Axis::uniform_step(&[0.0, 1.0, 3.0]), None);
        for positions in [&[][..], &[1.0], &[1.0, 1.0], &[0.0, f64::INFINITY]] {
            assert_eq!(Axis::uniform_step(positions), None, "{positions:?}");
        }
    }

    #[test]
    fn times_count_from_the_first_frame_or_from_1970() {
        let every = axis("ms", 40.0).timing();
        assert_eq!((every.at(0), every.at(3)), (Some(0), Some(120_000_000)));
        assert_eq!(axis("nm", 1.0).timing().at(0), None);
        let listed = Timing { start_ns: Some(1000), frames: FrameTimes::since_first(&[5.0, 7.0]) };
        assert_eq!([listed.at(0), listed.at(1), listed.at(2)], [Some(1000), Some(1002), None]);
        assert_eq!(FrameTimes::since_first(&[5.0, 4.0]), FrameTimes::Unknown);
        let single = Timing { start_ns: Some(1000), frames: FrameTimes::Unknown };
        assert_eq!((single.at(0), single.at(1)), (Some(1000), None));
    }
}
