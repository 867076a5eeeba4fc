//! A sub-scan: a smaller scan placed within the full one, in fractions of it, as controllers of scans say it.

use crate::config::InvalidSetting;
use crate::simulate::microscope::{Microscope, turned};
use serde_json::{Value, json};

/// Where within the full scan the beam goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Subscan {
    /// Share of the full scan's height and width, `[y, x]`, above 0, at most 1.
    pub fractional_size: [f64; 2],
    /// Its centre in the full scan, `[y, x]`: (0, 0) is the top left edge, (1, 1) the bottom right one, and both axes turn with the
    /// full scan.
    pub fractional_center: [f64; 2],
    /// On top of the full scan's rotation, counter-clockwise as displayed.
    pub rotation_rad: f64,
    /// `[rows, cols]`; without it, the pixels are as large as the full scan's.
    pub shape: Option<[usize; 2]>,
}

impl Subscan {
    /// All of the full scan.
    pub const WHOLE: Self =
        Self { fractional_size: [1.0; 2], fractional_center: [0.5; 2], rotation_rad: 0.0, shape: None };

    /// As in the status and in a frame's `user_data`.
    pub fn describe(&self) -> Value {
        json!({
            "fractional_size": self.fractional_size,
            "fractional_center": self.fractional_center,
            "rotation_rad": self.rotation_rad,
            "shape": self.shape,
        })
    }

    /// This part of the `full` scan, as a scan of its own.
    ///
    /// # Errors
    /// [`InvalidSetting`] for a fraction out of range, or a shape whose pixels would not be square.
    pub fn of(&self, full: &Microscope) -> Result<Microscope, InvalidSetting> {
        let refuse = |key: &str, value: [f64; 2], expected: &str| {
            Err(InvalidSetting::new(key, format!("{value:?}"), expected))
        };
        if !self.fractional_size.iter().all(|size| *size > 0.0 && *size <= 1.0) {
            return refuse(
                "subscan_fractional_size",
                self.fractional_size,
                "two fractions above 0, at most 1",
            );
        }
        if !self.fractional_center.iter().all(|center| (0.0..=1.0).contains(center)) {
            return refuse("subscan_fractional_center", self.fractional_center, "two fractions of 0 to 1");
        }
        let [height_nm, width_nm] = full.fov_nm();
        let [size_y, size_x] = self.fractional_size;
        let own = [size_y * full.shape[0] as f64, size_x * full.shape[1] as f64];
        let shape = self.shape.unwrap_or_else(|| own.map(|n| n.round() as usize));
        let pixel_size_pm = match self.shape {
            None => full.pixel_size_pm,
            Some([rows, cols]) => {
                let [high_pm, wide_pm] =
                    [1e3 * size_y * height_nm / rows as f64, 1e3 * size_x * width_nm / cols as f64];
                let square = (high_pm / wide_pm - 1.0).abs() < 0.01;
                if !square {
                    let shape = [rows as f64, cols as f64];
                    return refuse("subscan_shape", shape, "the aspect of the sub-scan: pixels are square");
                }
                wide_pm
            }
        };
        let [center_y, center_x] = self.fractional_center;
        let offset = [(center_x - 0.5) * width_nm, (center_y - 0.5) * height_nm];
        let [x, y] = turned(offset, full.rotation_rad);
        let scan = Microscope {
            shape,
            pixel_size_pm,
            center_nm: [full.center_nm[0] + y, full.center_nm[1] + x],
            rotation_rad: full.rotation_rad + self.rotation_rad,
            ..full.clone()
        };
        scan.validate("subscan")?;
        Ok(scan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::FRAC_PI_2;

    fn full() -> Microscope {
        Microscope {
            shape: [200, 400],
            pixel_size_pm: 20.0,
            center_nm: [10.0, -5.0],
            ..Microscope::default()
        }
    }

    #[test]
    fn a_quarter_of_the_scan_by_hand() {
        // The full scan is 4 nm high and 8 nm wide; 0.75 of the width lies 2 nm right of the centre, 0.25 of the height 1 nm above.
        let subscan = Subscan {
            fractional_size: [0.5, 0.25],
            fractional_center: [0.25, 0.75],
            rotation_rad: 0.1,
            shape: None,
        };
        let scan = subscan.of(&full()).unwrap();
        assert_eq!((scan.shape, scan.pixel_size_pm, scan.rotation_rad), ([100, 100], 20.0, 0.1));
        assert_eq!(scan.center_nm, [9.0, -3.0]);
        let finer = Subscan { shape: Some([400, 400]), ..subscan }.of(&full()).unwrap();
        assert_eq!((finer.shape, finer.center_nm), ([400, 400], [9.0, -3.0]));
        assert!((finer.pixel_size_pm - 5.0).abs() < 1e-12);
        // Turned by 90°, the full scan's right is the specimen's up and its up the specimen's left.
        let turned = subscan.of(&Microscope { rotation_rad: FRAC_PI_2, ..full() }).unwrap();
        let [y, x] = turned.center_nm;
        assert!((y - 8.0).abs() < 1e-12 && (x + 6.0).abs() < 1e-12, "{y} {x}");
        assert_eq!(Subscan::WHOLE.of(&full()).unwrap(), full());
    }

    #[test]
    fn a_site_is_where_its_fraction_of_the_full_scan_says() {
        let full = Microscope { rotation_rad: -0.6, ..full() };
        let site_nm = full.pixel_to_specimen_nm(31.0, 290.5);
        let fraction = [(31.0 + 0.5) / 200.0, (290.5 + 0.5) / 400.0];
        for rotation_rad in [0.0, 0.9] {
            let subscan = Subscan {
                fractional_size: [0.2, 0.1],
                fractional_center: fraction,
                rotation_rad,
                shape: None,
            };
            let [row, col] = subscan.of(&full).unwrap().specimen_nm_to_pixel(site_nm);
            assert!((row - 19.5).abs() < 1e-9 && (col - 19.5).abs() < 1e-9, "{row} {col}");
        }
    }

    #[test]
    fn impossible_parts_are_refused_by_name() {
        let key = |subscan: Subscan| subscan.of(&full()).unwrap_err().key;
        assert_eq!(key(Subscan { fractional_size: [0.0, 1.0], ..Subscan::WHOLE }), "subscan_fractional_size");
        assert_eq!(key(Subscan { fractional_size: [1.0, 1.5], ..Subscan::WHOLE }), "subscan_fractional_size");
        assert_eq!(
            key(Subscan { fractional_center: [f64::NAN, 0.5], ..Subscan::WHOLE }),
            "subscan_fractional_center"
        );
        assert_eq!(key(Subscan { shape: Some([100, 100]), ..Subscan::WHOLE }), "subscan_shape");
        assert_eq!(key(Subscan { shape: Some([0, 0]), ..Subscan::WHOLE }), "subscan_shape");
        // 0.05 of 200 rows are 10.
        assert_eq!(key(Subscan { fractional_size: [0.05, 0.05], ..Subscan::WHOLE }), "subscan.shape");
    }
}
