//! One position in the three coordinate systems of a candidate.

use crate::frame::Frame;
use ferrostem_proto::{Calibration, CalibrationSource, FractionalPosition, PixelPosition, StagePosition};

/// Where a site of `frame` is, in pixels, as a fraction of the field of view, and as an offset from its centre.
///
/// The offset is turned by the scan rotation, counter-clockwise as displayed: for a rotation θ and an offset `(x, y)` in
/// the image (y down), it is `(x cos θ + y sin θ, −x sin θ + y cos θ)`. It is NaN where the pixel size is not known.
pub fn locate(
    px: PixelPosition,
    frame: &Frame,
    calibration: &Calibration,
) -> (FractionalPosition, StagePosition) {
    let (rows, cols) = frame.pixels.dim();
    let frac = FractionalPosition { y: (px.row + 0.5) / rows as f64, x: (px.col + 0.5) / cols as f64 };
    let [row_pm, col_pm] = match calibration.source {
        CalibrationSource::None => [f64::NAN; 2],
        _ => calibration.pixel_size_pm,
    };
    let down = (frac.y - 0.5) * rows as f64 * row_pm / 1000.0;
    let right = (frac.x - 0.5) * cols as f64 * col_pm / 1000.0;
    let rotation_rad = frame.scan.rotation_rad;
    let (sin, cos) = rotation_rad.sin_cos();
    let nm = StagePosition { x: right * cos + down * sin, y: down * cos - right * sin, rotation_rad };
    (frac, nm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration(row: f64, col: f64) -> Calibration {
        Calibration { pixel_size_pm: [row, col], source: CalibrationSource::Frame }
    }

    #[test]
    fn worked_cases() {
        let quarter = std::f64::consts::FRAC_PI_2;
        // rotation, pixel size [row, col], px -> expected (y, x) fraction and (x, y) nm; frame 100 x 200 px.
        let cases = [
            (0.0, [20.0, 10.0], (49.5, 99.5), (0.5, 0.5), (0.0, 0.0)),
            (0.0, [20.0, 10.0], (49.5, 199.5), (0.5, 1.0), (1.0, 0.0)),
            (0.0, [20.0, 10.0], (-0.5, 99.5), (0.0, 0.5), (0.0, -1.0)),
            // A scan turned by a quarter turn counter-clockwise: its right points up in the specimen.
            (quarter, [20.0, 10.0], (49.5, 199.5), (0.5, 1.0), (0.0, -1.0)),
            (quarter, [20.0, 10.0], (99.5, 99.5), (1.0, 0.5), (1.0, 0.0)),
            // Clockwise: its right points down. Upside down: both axes point the other way.
            (-quarter, [20.0, 10.0], (49.5, 199.5), (0.5, 1.0), (0.0, 1.0)),
            (2.0 * quarter, [20.0, 10.0], (0.0, 0.0), (0.005, 0.0025), (0.995, 0.99)),
            // 30°, 2 nm to the right and 1 nm down: 2 cos 30° + 1 sin 30° and 1 cos 30° - 2 sin 30°.
            (
                quarter / 3.0,
                [20.0, 20.0],
                (99.5, 199.5),
                (1.0, 1.0),
                (2.232_050_807_568_877, -0.133_974_596_215_561),
            ),
            // 60° on pixels 40 pm high and 10 pm wide, 1 nm to the right and 2 nm down: cos 60° + 2 sin 60°, 2 cos 60° - sin 60°.
            (
                2.0 * quarter / 3.0,
                [40.0, 10.0],
                (99.5, 199.5),
                (1.0, 1.0),
                (2.232_050_807_568_877, 0.133_974_596_215_561),
            ),
        ];
        for (rotation, [row_pm, col_pm], (row, col), (y, x), (x_nm, y_nm)) in cases {
            let frame = Frame::blank(100, 200, rotation);
            let (frac, nm) = locate(PixelPosition { row, col }, &frame, &calibration(row_pm, col_pm));
            assert!((frac.y - y).abs() < 1e-12 && (frac.x - x).abs() < 1e-12);
            assert!((nm.x - x_nm).abs() < 1e-12 && (nm.y - y_nm).abs() < 1e-12, "{nm:?}");
        }
        let unknown = Calibration { pixel_size_pm: [15.0, 15.0], source: CalibrationSource::None };
        let (_, nm) = locate(PixelPosition::default(), &Frame::blank(40, 40, 0.0), &unknown);
        assert!(nm.x.is_nan() && nm.y.is_nan());
    }
}
