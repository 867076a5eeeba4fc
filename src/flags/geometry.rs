//! One position in the three coordinate systems of a candidate.

use crate::frame::Frame;
use ferrostem_proto::{Calibration, CalibrationSource, FractionalPosition, PixelPosition, StagePosition};

/// Where a site of `frame` is, in pixels, as a fraction of the field of view, and as an offset from its centre.
///
/// The offset is turned by the scan rotation, counter-clockwise as displayed: for a rotation θ and an offset `(x, y)` in
/// the image (y down), it is `(x cos θ + y sin θ, −x sin θ + y cos θ)`. It is NaN where the pixel size is not known.
///
/// A table worked by hand, which a test holds to. The full scan has 100 × 200 px and is centred on `(y, x)` = (10, -5) nm of the
/// specimen. A sub-scan, where there is one, is the lower right quarter, centred on the fractions (0.75, 0.75); it is a frame of its
/// own, turned by both turns, with a centre of its own, and the candidate's `frac` and `nm` are of that frame. `nm` and the frame's
/// centre are the place in the specimen.
///
/// | full scan turned | pixel, row × col | sub-scan | site at `px` (row, col) | `frac` (y, x) | `nm` (x, y) | specimen (y, x), nm |
/// |---|---|---|---|---|---|---|
/// | 0° | 20 × 20 pm | | 49.5, 199.5 | 0.5, 1 | 2, 0 | 10, -3 |
/// | 90° | 20 × 20 pm | | 49.5, 199.5 | 0.5, 1 | 0, -2 | 8, -5 |
/// | 0° | 40 × 10 pm | | 99.5, 199.5 | 1, 1 | 1, 2 | 12, -4 |
/// | 30° | 40 × 10 pm | | 99.5, 199.5 | 1, 1 | 1.866, 1.232 | 11.232, -3.134 |
/// | 0° | 20 × 20 pm | 50 × 100 px | 24.5, 99.5 | 0.5, 1 | 1, 0 | 10.5, -3 |
/// | 90° | 20 × 20 pm | 50 × 100 px | 24.5, 99.5 | 0.5, 1 | 0, -1 | 8, -4.5 |
/// | 0° | 20 × 20 pm | 50 × 100 px, turned 90° | 24.5, 99.5 | 0.5, 1 | 0, -1 | 9.5, -4 |
/// | 0° | 40 × 10 pm | 50 × 100 px | 49.5, 99.5 | 1, 1 | 0.5, 1 | 12, -4 |
/// | 30° | 40 × 10 pm | 50 × 100 px, turned 60° | 49.5, 99.5 | 1, 1 | 1, -0.5 | 10.116, -3.067 |
/// | 90° | 20 × 20 pm | 100 × 50 px, which are 10 × 40 pm | 99.5, 49.5 | 1, 1 | 0.5, -1 | 8, -4 |
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
    use crate::simulate::{Microscope, SubScan};

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

    /// Full scan's rotation, pixel `[row, col]`, sub-scan's rotation and shape, px, fraction `(y, x)`, nm `(x, y)`, specimen `(y, x)`.
    type Case = (f64, [f64; 2], Option<(f64, Option<[usize; 2]>)>, [f64; 2], [f64; 2], [f64; 2], [f64; 2]);

    #[test]
    fn the_table_of_rotation_sub_scan_and_pixels_that_are_not_square() {
        const COS_30: f64 = 0.866_025_403_784_438_6;
        let turn = |degrees: f64| degrees.to_radians();
        let (square, flat) = ([20.0, 20.0], [40.0, 10.0]);
        let cases: [Case; 10] = [
            (0.0, square, None, [49.5, 199.5], [0.5, 1.0], [2.0, 0.0], [10.0, -3.0]),
            // Turned by 90°, right is up.
            (turn(90.0), square, None, [49.5, 199.5], [0.5, 1.0], [0.0, -2.0], [8.0, -5.0]),
            // 50 rows of 40 pm are 2 nm down, 100 columns of 10 pm are 1 nm to the right.
            (0.0, flat, None, [99.5, 199.5], [1.0, 1.0], [1.0, 2.0], [12.0, -4.0]),
            // The same turned by 30°: cos 30° + 2 sin 30° and 2 cos 30° - sin 30°.
            (
                turn(30.0),
                flat,
                None,
                [99.5, 199.5],
                [1.0, 1.0],
                [COS_30 + 1.0, 2.0 * COS_30 - 0.5],
                [9.5 + 2.0 * COS_30, COS_30 - 4.0],
            ),
            // The quarter's centre is 0.5 nm down and 1 nm to the right of the full scan's.
            (0.0, square, Some((0.0, None)), [24.5, 99.5], [0.5, 1.0], [1.0, 0.0], [10.5, -3.0]),
            // Turned by 90° it is 1 nm up and 0.5 nm to the right: (9, -4.5).
            (turn(90.0), square, Some((0.0, None)), [24.5, 99.5], [0.5, 1.0], [0.0, -1.0], [8.0, -4.5]),
            // Turned within the full scan, it stays where it is.
            (0.0, square, Some((turn(90.0), None)), [24.5, 99.5], [0.5, 1.0], [0.0, -1.0], [9.5, -4.0]),
            // The full scan's own corner, of the third row.
            (0.0, flat, Some((0.0, None)), [49.5, 99.5], [1.0, 1.0], [0.5, 1.0], [12.0, -4.0]),
            // Centre 0.5 cos 30° + 1 sin 30° to the right and 1 cos 30° - 0.5 sin 30° down; right is up by both turns together.
            (
                turn(30.0),
                flat,
                Some((turn(60.0), None)),
                [49.5, 99.5],
                [1.0, 1.0],
                [1.0, -0.5],
                [10.0 + COS_30 - 0.25 - 0.5, -5.0 + 0.5 * COS_30 + 0.5 + 1.0],
            ),
            // 1 nm by 2 nm with 100 × 50 px.
            (
                turn(90.0),
                square,
                Some((0.0, Some([100, 50]))),
                [99.5, 49.5],
                [1.0, 1.0],
                [0.5, -1.0],
                [8.0, -4.0],
            ),
        ];
        for (n, (rotation_rad, [row_pm, col_pm], part, [row, col], frac, nm, specimen)) in
            cases.into_iter().enumerate()
        {
            let sub_scan = part.map(|(rotation_rad, shape)| SubScan {
                fractional_size: [0.5; 2],
                fractional_center: [0.75; 2],
                rotation_rad,
                shape,
            });
            let scan = Microscope {
                shape: [100, 200],
                pixel_size_pm: col_pm,
                pixel_aspect: row_pm / col_pm,
                center_nm: [10.0, -5.0],
                rotation_rad,
                sub_scan,
                ..Microscope::default()
            }
            .scanned();
            let mut frame = Frame::blank(scan.shape[0], scan.shape[1], scan.rotation_rad);
            frame.scan.center_nm = scan.center_nm;
            let [row_pm, col_pm] = scan.pixel_sizes_pm();
            let found = locate(PixelPosition { row, col }, &frame, &calibration(row_pm, col_pm));
            let [y0, x0] = frame.scan.center_nm;
            let found = [
                [found.0.y, found.0.x],
                [found.1.x, found.1.y],
                [y0 + found.1.y, x0 + found.1.x],
                scan.pixel_to_specimen_nm(row, col),
            ];
            for (found, expected) in found.into_iter().zip([frac, nm, specimen, specimen]) {
                let off = (found[0] - expected[0]).hypot(found[1] - expected[1]);
                assert!(off < 1e-9, "row {}: {found:?}, not {expected:?}", n + 1);
            }
        }
    }
}
