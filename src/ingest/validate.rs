//! A frame message → a [`Frame`]: defaults filled in, calibration checked, pixels as `f32` with NaN where nothing was measured.

use super::settings::{MIN_SIDE_PX, PIXEL_SIZE_RANGE_PM, SourceSettings, is_positive};
use crate::frame::{Frame, FrameTimes, ScanGeometry};
use ferrostem_proto::{FrameMessage, FrameState, PixelArray};
use ndarray::Array2;
use std::ops::Range;
use std::sync::Arc;

/// Why a frame cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidFrame {
    #[error("{rows} x {cols} px: expected at least {min} a side without the border of {border}")]
    TooSmall { rows: usize, cols: usize, min: usize, border: usize },
    #[error("{rows} x {cols} px: at most {max} a side are accepted (max_side_px)")]
    TooLarge { rows: usize, cols: usize, max: usize },
    #[error("pixel_size_pm is {found:?}: expected 0.5 to 1000 pm (is it in another unit?)")]
    PixelSize { found: [f64; 2] },
    #[error("{field} is {found:?}: expected {expected}")]
    Field { field: &'static str, found: Vec<f64>, expected: &'static str },
    #[error("t_start_ns {start_ns} is after t_end_ns {end_ns}")]
    Times { start_ns: u64, end_ns: u64 },
    #[error("valid_rows is {from}..{to}: expected rows within 0..{rows}")]
    ValidRows { from: u64, to: u64, rows: usize },
    #[error("no pixel is finite")]
    NothingMeasured,
}

/// Checks `message` and fills in what it leaves out from the `settings` of its source; `acquisition` is the name for a
/// frame that has none. Times that the frame leaves out are `received_ns`.
///
/// A frame without `pixel_size_pm` but with `fov_nm` has the pixel size that follows from them. The pixel size of the
/// settings is *not* filled in: `preprocess` takes it, and says so in the result.
///
/// Non-finite pixels, rows outside `valid_rows` and the settings' border become NaN.
///
/// # Errors
/// See [`InvalidFrame`].
pub fn validate(
    message: FrameMessage,
    settings: &SourceSettings,
    acquisition: &str,
    received_ns: u64,
) -> Result<Frame, InvalidFrame> {
    let shape = check_shape(&message.data, settings)?;
    let scan = scan_geometry(&message, settings, shape)?;
    let times = FrameTimes {
        start_ns: message.t_start_ns.or(message.t_end_ns).unwrap_or(received_ns),
        end_ns: message.t_end_ns.or(message.t_start_ns).unwrap_or(received_ns),
        received_ns,
    };
    if times.start_ns > times.end_ns {
        return Err(InvalidFrame::Times { start_ns: times.start_ns, end_ns: times.end_ns });
    }
    let valid_rows = check_valid_rows(message.valid_rows, shape)?;
    let pixels = measured_pixels(&message.data, &valid_rows, settings.border_px)?;
    Ok(Frame {
        source: settings.name.clone(),
        acquisition: message.acquisition.unwrap_or_else(|| acquisition.to_owned()),
        seq: message.seq,
        pixels,
        raw: Arc::new(message.data),
        scan,
        times,
        channel: message.channel.unwrap_or_else(|| settings.channel.clone()),
        state: message.state.unwrap_or(FrameState::Complete),
        valid_rows,
        user_data: message.user_data,
    })
}

/// `[rows, cols]`, between the limits.
fn check_shape(data: &PixelArray, settings: &SourceSettings) -> Result<[usize; 2], InvalidFrame> {
    let [rows, cols] = data.shape();
    let border = settings.border_px;
    let smallest = MIN_SIDE_PX + 2 * border;
    if rows < smallest || cols < smallest {
        return Err(InvalidFrame::TooSmall { rows, cols, min: MIN_SIDE_PX, border });
    }
    let max = settings.max_side_px;
    if rows > max || cols > max {
        return Err(InvalidFrame::TooLarge { rows, cols, max });
    }
    Ok([rows, cols])
}

fn scan_geometry(
    message: &FrameMessage,
    settings: &SourceSettings,
    [rows, cols]: [usize; 2],
) -> Result<ScanGeometry, InvalidFrame> {
    let check = |right: bool, field, found: &[f64], expected| {
        if right { Ok(()) } else { Err(InvalidFrame::Field { field, found: found.to_vec(), expected }) }
    };
    let rotation_rad = message.rotation_rad.unwrap_or(settings.rotation_rad);
    check(rotation_rad.is_finite(), "rotation_rad", &[rotation_rad], "a finite angle")?;
    let center_nm = message.center_nm.unwrap_or(settings.center_nm);
    check(center_nm.iter().all(|nm| nm.is_finite()), "center_nm", &center_nm, "finite offsets")?;
    let fov_nm = message.fov_nm.or(settings.fov_nm);
    if let Some(fov_nm) = fov_nm {
        check(fov_nm.iter().all(|nm| is_positive(*nm)), "fov_nm", &fov_nm, "lengths above 0")?;
    }
    let dwell_us = message.dwell_us.or(settings.dwell_us);
    if let Some(dwell_us) = dwell_us {
        check(is_positive(dwell_us), "dwell_us", &[dwell_us], "a time above 0")?;
    }
    let from_fov = |[y, x]: [f64; 2]| [1000.0 * y / rows as f64, 1000.0 * x / cols as f64];
    let pixel_size_pm = message.pixel_size_pm.or_else(|| message.fov_nm.map(from_fov));
    if let Some(found) = pixel_size_pm
        && !found.iter().all(|side| PIXEL_SIZE_RANGE_PM.contains(side))
    {
        return Err(InvalidFrame::PixelSize { found });
    }
    Ok(ScanGeometry { pixel_size_pm, rotation_rad, center_nm, fov_nm, dwell_us })
}

fn check_valid_rows(
    valid_rows: Option<[u64; 2]>,
    [rows, _]: [usize; 2],
) -> Result<Range<usize>, InvalidFrame> {
    let Some([from, to]) = valid_rows else { return Ok(0..rows) };
    match (usize::try_from(from), usize::try_from(to)) {
        (Ok(first), Ok(end)) if first < end && end <= rows => Ok(first..end),
        _ => Err(InvalidFrame::ValidRows { from, to, rows }),
    }
}

/// The pixels as `f32`, NaN where not finite, outside `valid_rows`, or in the border.
fn measured_pixels(
    data: &PixelArray,
    valid_rows: &Range<usize>,
    border: usize,
) -> Result<Array2<f32>, InvalidFrame> {
    let [rows, cols] = data.shape();
    let mut values = data.to_f32();
    let measured_rows = valid_rows.start.max(border)..valid_rows.end.min(rows - border);
    let measured_cols = border..cols - border;
    let mut measured = false;
    for (row, line) in values.chunks_exact_mut(cols).enumerate() {
        if !measured_rows.contains(&row) {
            line.fill(f32::NAN);
            continue;
        }
        for (col, pixel) in line.iter_mut().enumerate() {
            if pixel.is_finite() && measured_cols.contains(&col) {
                measured = true;
            } else {
                *pixel = f32::NAN;
            }
        }
    }
    if !measured {
        return Err(InvalidFrame::NothingMeasured);
    }
    // `PixelArray` holds rows * cols values, so this cannot fail.
    Array2::from_shape_vec((rows, cols), values).map_err(|_| InvalidFrame::NothingMeasured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ferrostem_proto::{ByteOrder, Dtype};

    fn message(rows: usize, cols: usize) -> FrameMessage {
        let values: Vec<f32> = (0..rows * cols).map(|index| index as f32).collect();
        FrameMessage::new(5, PixelArray::from_f32([rows, cols], &values).unwrap())
    }

    fn accept(message: FrameMessage) -> Result<Frame, InvalidFrame> {
        validate(message, &SourceSettings::default(), "fallback", 1000)
    }

    #[test]
    fn what_a_frame_leaves_out_comes_from_its_source() {
        let settings = SourceSettings {
            name: "titan".to_owned(),
            channel: "BF".to_owned(),
            rotation_rad: 0.5,
            center_nm: [1.0, 2.0],
            dwell_us: Some(4.0),
            ..SourceSettings::default()
        };
        let frame = validate(message(32, 40), &settings, "fallback", 1000).unwrap();
        assert_eq!((frame.source.as_str(), frame.channel.as_str()), ("titan", "BF"));
        assert_eq!((frame.acquisition.as_str(), frame.seq), ("fallback", 5));
        assert_eq!(frame.times, FrameTimes { start_ns: 1000, end_ns: 1000, received_ns: 1000 });
        let expected = ScanGeometry {
            rotation_rad: 0.5,
            center_nm: [1.0, 2.0],
            dwell_us: Some(4.0),
            ..ScanGeometry::default()
        };
        assert_eq!(frame.scan, expected);
        assert_eq!((frame.state, frame.valid_rows.clone()), (FrameState::Complete, 0..32));
        assert_eq!(frame.pixels.dim(), (32, 40));
        assert_eq!(frame.pixels[[2, 3]], 83.0);
        assert_eq!(frame.raw.shape(), [32, 40]);
    }

    #[test]
    fn what_a_frame_says_wins() {
        let settings = SourceSettings { rotation_rad: 9.0, ..SourceSettings::default() };
        let mut said = message(32, 32);
        said.acquisition = Some("own".to_owned());
        said.channel = Some("ADF".to_owned());
        said.pixel_size_pm = Some([15.0, 16.0]);
        said.rotation_rad = Some(-0.25);
        said.t_start_ns = Some(10);
        said.t_end_ns = Some(20);
        let frame = validate(said, &settings, "fallback", 1000).unwrap();
        assert_eq!((frame.acquisition.as_str(), frame.channel.as_str()), ("own", "ADF"));
        assert_eq!((frame.scan.pixel_size_pm, frame.scan.rotation_rad), (Some([15.0, 16.0]), -0.25));
        assert_eq!(frame.times, FrameTimes { start_ns: 10, end_ns: 20, received_ns: 1000 });
    }

    #[test]
    fn the_pixel_size_follows_from_the_field_of_view() {
        let mut wide = message(32, 64);
        wide.fov_nm = Some([0.48, 1.28]);
        let pixel_size_pm = accept(wide).unwrap().scan.pixel_size_pm.unwrap();
        assert!((pixel_size_pm[0] - 15.0).abs() < 1e-9 && (pixel_size_pm[1] - 20.0).abs() < 1e-9);
    }

    #[test]
    fn rows_not_yet_scanned_the_border_and_infinities_are_not_measured() {
        let mut values = vec![1.0; 40 * 40];
        values[20 * 40 + 20] = f32::INFINITY;
        let mut partial = FrameMessage::new(0, PixelArray::from_f32([40, 40], &values).unwrap());
        partial.valid_rows = Some([5, 25]);
        partial.state = Some(FrameState::Partial);
        let settings = SourceSettings { border_px: 4, ..SourceSettings::default() };
        let frame = validate(partial, &settings, "a", 0).unwrap();
        for ((row, col), pixel) in frame.pixels.indexed_iter() {
            let measured = (5..25).contains(&row) && (4..36).contains(&col) && (row, col) != (20, 20);
            assert_eq!(pixel.is_nan(), !measured, "({row}, {col})");
        }
        assert_eq!(frame.valid_rows, 5..25);
    }

    #[test]
    fn integers_of_either_byte_order_become_the_same_pixels() {
        let values: Vec<u16> = (0..32 * 32).map(|index| index * 7).collect();
        let frame_of = |byte_order, to: fn(u16) -> [u8; 2]| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| to(*value)).collect();
            let data = PixelArray::new(Dtype::U16, byte_order, [32, 32], Bytes::from(bytes)).unwrap();
            accept(FrameMessage::new(0, data)).unwrap().pixels
        };
        let little = frame_of(ByteOrder::Little, u16::to_le_bytes);
        assert_eq!(little, frame_of(ByteOrder::Big, u16::to_be_bytes));
        assert_eq!(little[[1, 1]], 231.0);
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let with = |change: fn(&mut FrameMessage)| {
            let mut changed = message(32, 32);
            change(&mut changed);
            accept(changed).unwrap_err()
        };
        assert!(matches!(accept(message(31, 32)), Err(InvalidFrame::TooSmall { rows: 31, .. })));
        assert!(matches!(accept(message(32, 8193)), Err(InvalidFrame::TooLarge { cols: 8193, .. })));
        for bad in [f64::NAN, 0.0, -15.0, 0.4, 1001.0, 1.5e-11] {
            let mut sized = message(32, 32);
            sized.pixel_size_pm = Some([15.0, bad]);
            assert!(matches!(accept(sized), Err(InvalidFrame::PixelSize { .. })), "{bad}");
        }
        for bad in [[0, 33], [5, 5], [6, 5], [u64::MAX, u64::MAX]] {
            let mut rows = message(32, 32);
            rows.valid_rows = Some(bad);
            assert!(matches!(accept(rows), Err(InvalidFrame::ValidRows { .. })), "{bad:?}");
        }
        let field = |error| match error {
            InvalidFrame::Field { field, .. } => field,
            other => panic!("{other}"),
        };
        assert_eq!(field(with(|it| it.rotation_rad = Some(f64::NAN))), "rotation_rad");
        assert_eq!(field(with(|it| it.center_nm = Some([0.0, f64::INFINITY]))), "center_nm");
        assert_eq!(field(with(|it| it.fov_nm = Some([0.0, 1.0]))), "fov_nm");
        assert_eq!(field(with(|it| it.dwell_us = Some(-2.0))), "dwell_us");
        let late = with(|it| (it.t_start_ns, it.t_end_ns) = (Some(2), Some(1)));
        assert_eq!(late, InvalidFrame::Times { start_ns: 2, end_ns: 1 });
        let dark = FrameMessage::new(0, PixelArray::from_f32([32, 32], &[f32::NAN; 1024]).unwrap());
        assert_eq!(accept(dark).unwrap_err(), InvalidFrame::NothingMeasured);
    }
}
