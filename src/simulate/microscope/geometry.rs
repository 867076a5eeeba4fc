//! Where the scan goes: between pixels and positions in the specimen.

use super::Microscope;
use crate::config::InvalidSetting;
use crate::simulate::check::Check;
use serde::{Deserialize, Serialize};

/// The part of a full scan that is recorded, in fractions of it as controllers of scans say it: `(y, x)` with (0, 0) at the top
/// left edge and (1, 1) at the bottom right one, both axes turning with the full scan.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubScan {
    /// Share of the full scan's height and width, above 0, at most 1.
    pub fractional_size: [f64; 2],
    pub fractional_center: [f64; 2],
    /// Turn of the part within the full scan's image, counter-clockwise as displayed; the full scan's rotation is added.
    pub rotation_rad: f64,
    /// `[rows, cols]` of the recorded frame; without, pixels are as large as the full scan's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<[usize; 2]>,
}

impl Default for SubScan {
    /// All of the full scan.
    fn default() -> Self {
        Self { fractional_size: [1.0; 2], fractional_center: [0.5; 2], rotation_rad: 0.0, shape: None }
    }
}

/// `vector` = `[x, y]` (y down) turned counter-clockwise as displayed.
pub(in crate::simulate) fn turned(vector: [f64; 2], angle_rad: f64) -> [f64; 2] {
    let (sin, cos) = angle_rad.sin_cos();
    [cos * vector[0] + sin * vector[1], cos * vector[1] - sin * vector[0]]
}

impl SubScan {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        let (size, center) = (self.fractional_size, self.fractional_center);
        let sized = size.iter().all(|s| *s > 0.0 && *s <= 1.0);
        check.that(sized, "fractional_size", &size, "two fractions above 0, at most 1")?;
        let placed = center.iter().all(|c| (0.0..=1.0).contains(c));
        check.that(placed, "fractional_center", &center, "two fractions of 0 to 1")?;
        check.angle("rotation_rad", self.rotation_rad)?;
        let shape = self.shape.unwrap_or([16, 16]);
        let expected = "16 to 8192 rows and columns";
        check.that(shape.iter().all(|n| (16..=8192).contains(n)), "shape", &shape, expected)
    }

    /// This part of the `full` scan, as a scan of its own. Without a shape of its own its pixels are as large as the full scan's,
    /// and its field of view is the nearest that has whole pixels.
    pub fn of(&self, full: &Microscope) -> Microscope {
        let [height_nm, width_nm] = full.fov_nm();
        let [size_y, size_x] = self.fractional_size;
        let [rows, cols] = full.shape.map(|n| n as f64);
        let (shape, pixel_size_pm, pixel_aspect) = match self.shape {
            None => {
                let shape = [size_y * rows, size_x * cols].map(|n| n.round() as usize);
                (shape, full.pixel_size_pm, full.pixel_aspect)
            }
            Some(shape) => {
                let width = size_x * width_nm / shape[1] as f64;
                (shape, 1e3 * width, size_y * height_nm / shape[0] as f64 / width)
            }
        };
        let [center_y, center_x] = self.fractional_center;
        let offset = [(center_x - 0.5) * width_nm, (center_y - 0.5) * height_nm];
        let [x, y] = turned(offset, full.rotation_rad);
        Microscope {
            shape,
            pixel_size_pm,
            pixel_aspect,
            center_nm: [full.center_nm[0] + y, full.center_nm[1] + x],
            rotation_rad: full.rotation_rad + self.rotation_rad,
            sub_scan: None,
            ..full.clone()
        }
    }
}

impl Microscope {
    /// The scan that is recorded: the sub-scan as a scan of its own, or, where there is none, this one.
    pub fn scanned(&self) -> Self {
        self.sub_scan.map_or_else(|| self.clone(), |sub_scan| sub_scan.of(self))
    }

    /// Height and width of a pixel of the full scan, `[row, col]`.
    pub fn pixel_sizes_pm(&self) -> [f64; 2] {
        [self.pixel_size_pm * self.pixel_aspect, self.pixel_size_pm]
    }

    /// Field of view of the full scan, `[y, x]`, nm.
    pub fn fov_nm(&self) -> [f64; 2] {
        let [height_pm, width_pm] = self.pixel_sizes_pm();
        [self.shape[0] as f64 * height_pm / 1e3, self.shape[1] as f64 * width_pm / 1e3]
    }

    /// The specimen position `[y, x]` in nm under pixel `(row, col)` (integer = pixel centre) of the recorded frame, in
    /// mid-frame.
    pub fn pixel_to_specimen_nm(&self, row: f64, col: f64) -> [f64; 2] {
        let scan = self.scanned();
        let [center_row, center_col] = scan.center_px();
        let [high, wide] = scan.pixel_sizes_pm().map(|size| size * 1e-3);
        let [x, y] = turned([(col - center_col) * wide, (row - center_row) * high], scan.rotation_rad);
        [scan.center_nm[0] + y, scan.center_nm[1] + x]
    }

    /// The pixel `[row, col]` of the recorded frame that images the specimen position `[y, x]` in nm, in mid-frame.
    pub fn specimen_nm_to_pixel(&self, position_nm: [f64; 2]) -> [f64; 2] {
        let scan = self.scanned();
        let offset = [position_nm[1] - scan.center_nm[1], position_nm[0] - scan.center_nm[0]];
        let [x, y] = turned(offset, -scan.rotation_rad);
        let [center_row, center_col] = scan.center_px();
        let [high, wide] = scan.pixel_sizes_pm().map(|size| size * 1e-3);
        [center_row + y / high, center_col + x / wide]
    }

    /// The centre of the field of view in pixels, `[row, col]`.
    fn center_px(&self) -> [f64; 2] {
        self.shape.map(|n| (n as f64 - 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::{FRAC_PI_2, PI};

    fn close(found: [f64; 2], expected: [f64; 2]) {
        let distance = (found[0] - expected[0]).hypot(found[1] - expected[1]);
        assert!(distance < 1e-9, "{found:?}, expected {expected:?}");
    }

    /// 4 nm high, 8 nm wide, centred on (10, -5) nm.
    fn full() -> Microscope {
        Microscope {
            shape: [200, 400],
            pixel_size_pm: 20.0,
            center_nm: [10.0, -5.0],
            ..Microscope::default()
        }
    }

    #[test]
    fn the_field_of_view_maps_onto_the_specimen() {
        let mut scan = Microscope {
            shape: [101, 201],
            pixel_size_pm: 20.0,
            center_nm: [7.0, -3.0],
            ..Microscope::default()
        };
        assert_eq!(scan.fov_nm(), [2.02, 4.02]);
        assert_eq!(scan.pixel_to_specimen_nm(50.0, 100.0), [7.0, -3.0]);
        close(scan.pixel_to_specimen_nm(60.0, 150.0), [7.2, -2.0]);
        // Turned counter-clockwise by 90°, the image's right is the specimen's up, the image's down its right.
        scan.rotation_rad = FRAC_PI_2;
        close(scan.pixel_to_specimen_nm(50.0, 150.0), [6.0, -3.0]);
        close(scan.pixel_to_specimen_nm(60.0, 100.0), [7.0, -2.8]);
        // Pixels twice as high as wide: 10 rows are 0.4 nm.
        scan.pixel_aspect = 2.0;
        assert_eq!(scan.fov_nm(), [4.04, 4.02]);
        close(scan.pixel_to_specimen_nm(60.0, 100.0), [7.0, -2.6]);
    }

    #[test]
    fn a_table_of_sub_scans_worked_by_hand() {
        // (full rotation, sub-scan's size, centre, rotation, its shape; pixel of the sub-scan, specimen position).
        // The full scan reaches from (8, -9) to (12, -1) nm where it is not turned.
        type Case = (f64, [f64; 2], [f64; 2], f64, Option<[usize; 2]>, [f64; 2], [f64; 2]);
        let cases: [Case; 9] = [
            // All of it: the first pixel's centre is half a pixel, 10 pm, inside the corner.
            (0.0, [1.0, 1.0], [0.5, 0.5], 0.0, None, [0.0, 0.0], [8.01, -8.99]),
            // The lower right quarter: its middle is 1 nm below and 2 nm right of the centre.
            (0.0, [0.5, 0.5], [0.75, 0.75], 0.0, None, [49.5, 99.5], [11.0, -3.0]),
            // Its first pixel is the full scan's (100, 200), whose centre lies at (10.01, -4.99).
            (0.0, [0.5, 0.5], [0.75, 0.75], 0.0, None, [0.0, 0.0], [10.01, -4.99]),
            // The same with twice as many pixels, of 10 pm.
            (0.0, [0.5, 0.5], [0.75, 0.75], 0.0, Some([200, 400]), [0.0, 0.0], [10.005, -4.995]),
            // With 100 × 400 pixels, 20 pm high and 10 pm wide.
            (0.0, [0.5, 0.5], [0.75, 0.75], 0.0, Some([100, 400]), [0.0, 0.0], [10.01, -4.995]),
            // Full scan turned by 90°: right is up, down is right. The middle goes 2 nm up and 1 nm right.
            (FRAC_PI_2, [0.5, 0.5], [0.75, 0.75], 0.0, None, [49.5, 99.5], [8.0, -4.0]),
            // 50 columns of 20 pm to the right of that are another 1 nm up.
            (FRAC_PI_2, [0.5, 0.5], [0.75, 0.75], 0.0, None, [49.5, 149.5], [7.0, -4.0]),
            // The part itself turned by 90°: its middle stays, its right is up.
            (0.0, [0.5, 0.5], [0.75, 0.75], FRAC_PI_2, None, [49.5, 149.5], [10.0, -3.0]),
            // Both turned: right is up twice over, which is left.
            (FRAC_PI_2, [0.5, 0.5], [0.75, 0.75], FRAC_PI_2, None, [49.5, 149.5], [8.0, -5.0]),
        ];
        for (n, (rotation_rad, size, center, sub_rotation_rad, shape, [row, col], nm)) in
            cases.into_iter().enumerate()
        {
            let sub_scan = SubScan {
                fractional_size: size,
                fractional_center: center,
                rotation_rad: sub_rotation_rad,
                shape,
            };
            let scan = Microscope { rotation_rad, sub_scan: Some(sub_scan), ..full() };
            scan.validate("microscope").unwrap();
            let found = scan.pixel_to_specimen_nm(row, col);
            assert!((found[0] - nm[0]).hypot(found[1] - nm[1]) < 1e-9, "case {n}: {found:?}, not {nm:?}");
            close(scan.specimen_nm_to_pixel(nm), [row, col]);
        }
    }

    #[test]
    fn a_site_is_where_its_fraction_of_the_full_scan_says() {
        for full_rad in [0.0, -0.6, PI / 3.0] {
            let full = Microscope { rotation_rad: full_rad, pixel_aspect: 1.5, ..full() };
            let site_nm = full.pixel_to_specimen_nm(31.0, 290.5);
            let fraction = [(31.0 + 0.5) / 200.0, (290.5 + 0.5) / 400.0];
            for rotation_rad in [0.0, 0.9] {
                let sub_scan = SubScan {
                    fractional_size: [0.2, 0.1],
                    fractional_center: fraction,
                    rotation_rad,
                    shape: None,
                };
                let part = Microscope { sub_scan: Some(sub_scan), ..full.clone() };
                assert_eq!(part.scanned().shape, [40, 40]);
                close(part.specimen_nm_to_pixel(site_nm), [19.5, 19.5]);
            }
        }
    }

    #[test]
    fn the_two_mappings_are_inverse() {
        let sub_scan = SubScan {
            fractional_size: [0.3, 0.6],
            fractional_center: [0.2, 0.7],
            rotation_rad: 0.4,
            shape: Some([90, 64]),
        };
        for sub_scan in [None, Some(sub_scan)] {
            let scan = Microscope {
                rotation_rad: 0.7,
                center_nm: [31.0, -12.5],
                pixel_aspect: 0.8,
                sub_scan,
                ..Microscope::default()
            };
            let nm = scan.pixel_to_specimen_nm(12.25, 49.5);
            close(scan.specimen_nm_to_pixel(nm), [12.25, 49.5]);
        }
    }

    #[test]
    fn all_of_a_scan_is_that_scan() {
        let whole = Microscope { sub_scan: Some(SubScan::default()), ..full() };
        assert_eq!(whole.scanned(), full());
    }
}
