//! The Sm-doped BiFeO3 files of the DCNN paper (DOI 10.5281/zenodo.4555978): `*_HAADF.h5` with the image `MainImage`,
//! and `*_UCParameterization.h5` with the cells that were measured in it.
//!
//! They were written by MATLAB: vectors over N cells are `(1, N)`, pairs are `(2, N)`, and the first of a pair is along
//! the rows. Borders that drift correction left without data are NaN or constant, and are passed on as they are.
//!
//! How the paper's networks used the cells: a window takes the cell whose centre is nearest to its own (a KD-tree over
//! [`UnitCell::row_px`], [`UnitCell::col_px`]), within one cation–cation distance, beyond which a cell contributes
//! nothing. A window without such a cell has no target. The windows centred on atoms take the cell at zero distance; the
//! others leave out cells nearer than a minimum distance.

use super::super::error::{At, SessionError};
use super::super::h5::place;
use super::dataset::{Stack, image_axes};
use super::facts::{Calibration, Facts};
use super::hdf5::Found;
use hdf5::{Dataset, File};
use std::path::{Path, PathBuf};

const IMAGE: &str = "MainImage";
const CENTRES: &str = "xy_COM";
const POLARIZATION: &str = "Pxy";
/// Cells in one image; the largest has about 30 000.
const MAX_CELLS: usize = 10_000_000;
const CELLS_SUFFIX: &str = "_UCParameterization.h5";

pub(in crate::session) fn find(file: &File) -> Result<Option<Vec<Found>>, SessionError> {
    if file.link_exists(IMAGE) {
        let dataset = file.dataset(IMAGE).at(|| format!("{}:{IMAGE}", file.filename()))?;
        let group = file.group("/").at(|| file.filename())?;
        return Ok(Some(vec![Found { dataset, group }]));
    }
    if file.link_exists(CENTRES) && file.link_exists(POLARIZATION) {
        return Err(SessionError::unexpected(
            file.filename(),
            "images (MainImage, in the *_HAADF.h5 beside it)",
            "the cells of an Sm-BFO image (xy_COM, Pxy, …)",
        ));
    }
    Ok(None)
}

pub(in crate::session) fn stack(found: Found) -> Result<Stack, SessionError> {
    let dataset = found.dataset;
    let rank = dataset.ndim();
    let axes = image_axes(&dataset, [rank.saturating_sub(2), rank.saturating_sub(1)])?;
    let facts = Facts {
        channel: Some("HAADF".to_owned()),
        ..Facts::new(Calibration::none("Sm-BFO files state no pixel size"))
    };
    Ok(Stack { dataset, axes, facts })
}

/// One unit cell of `*_UCParameterization.h5`. NaN = the file does not say.
///
/// Lengths are in pixels of the image: the files state no pixel size. "Likely" marks what is inferred from the values,
/// since the files do not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnitCell {
    /// Centre of mass of the cell, `xy_COM[0]` and `xy_COM[1]`.
    pub row_px: f64,
    pub col_px: f64,
    /// Polar displacement, downward and rightward: `Pxy[0]` and `Pxy[1]`, which are likely in the order of `xy_COM`.
    /// About ±6 px.
    pub p_y_px: f64,
    pub p_x_px: f64,
    /// Cell parameters, `a` and `b`.
    pub cell_a_px: f64,
    pub cell_b_px: f64,
    /// Between a and b, `alpha` as in the file; likely radians.
    pub cell_angle: f64,
    /// Signed area, `Vol`: its sign is that of the order of the corners, about -670 px².
    pub area_px2: f64,
    /// Number of the cell along a and along b, `ab`.
    pub lattice_a: f64,
    pub lattice_b: f64,
    /// Deviations of a and b, `adelta` and `bdelta`; one file has both in `abdelta`.
    pub delta_a_px: f64,
    pub delta_b_px: f64,
    /// Intensities of the four corners and the centre, `I1` to `I5`.
    pub intensities: [f64; 5],
}

/// The cells of an Sm-BFO image.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitCellParameterization {
    /// In the order of the file.
    pub cells: Vec<UnitCell>,
}

impl UnitCellParameterization {
    /// Reads `path`. The centres and displacements are required, and have as many columns as there are cells; whatever
    /// else is missing becomes NaN.
    ///
    /// # Errors
    /// When it is no such file, or a dataset has another shape.
    pub fn open(path: &Path) -> Result<Self, SessionError> {
        let file = File::open(path).at(|| path.display().to_string())?;
        let centres = required(&file, CENTRES)?;
        let shape = centres.shape();
        let &[2, count] = &shape[..] else { return Err(wrong_shape(&centres, "(2, N)")) };
        if count > MAX_CELLS {
            return Err(wrong_shape(&centres, &format!("at most {MAX_CELLS} cells")));
        }
        let [row_px, col_px] = pair(&centres, count)?;
        let [p_y_px, p_x_px] = pair(&required(&file, POLARIZATION)?, count)?;
        let [lattice_a, lattice_b] = optional_pair(&file, "ab", count)?;
        let cell_a_px = optional(&file, "a", count)?;
        let cell_b_px = optional(&file, "b", count)?;
        let cell_angle = optional(&file, "alpha", count)?;
        let area_px2 = optional(&file, "Vol", count)?;
        let [delta_a_px, delta_b_px] = if file.link_exists("abdelta") {
            optional_pair(&file, "abdelta", count)?
        } else {
            [optional(&file, "adelta", count)?, optional(&file, "bdelta", count)?]
        };
        let intensities: Vec<Vec<f64>> =
            (1..=5).map(|site| optional(&file, &format!("I{site}"), count)).collect::<Result<_, _>>()?;
        let cell = |i: usize| UnitCell {
            row_px: row_px[i],
            col_px: col_px[i],
            p_y_px: p_y_px[i],
            p_x_px: p_x_px[i],
            cell_a_px: cell_a_px[i],
            cell_b_px: cell_b_px[i],
            cell_angle: cell_angle[i],
            area_px2: area_px2[i],
            lattice_a: lattice_a[i],
            lattice_b: lattice_b[i],
            delta_a_px: delta_a_px[i],
            delta_b_px: delta_b_px[i],
            intensities: std::array::from_fn(|site| intensities[site][i]),
        };
        Ok(Self { cells: (0..count).map(cell).collect() })
    }

    /// The file with the cells of the image `*_HAADF.h5`, where one lies beside it. Some names differ in case.
    pub fn beside(image: &Path) -> Option<PathBuf> {
        let stem = image.file_stem()?.to_str()?.to_ascii_lowercase();
        let wanted = format!("{}{CELLS_SUFFIX}", stem.strip_suffix("_haadf").unwrap_or(&stem));
        let folder = image.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let files = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let matches = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.eq_ignore_ascii_case(&wanted))
        };
        files.filter(matches).min()
    }
}

fn required(file: &File, name: &str) -> Result<Dataset, SessionError> {
    file.dataset(name).at(|| format!("{}:{name}", file.filename()))
}

fn wrong_shape(dataset: &Dataset, expected: &str) -> SessionError {
    SessionError::unexpected(place(dataset), expected, format!("shape {:?}", dataset.shape()))
}

/// Both rows of a `(2, N)` dataset.
fn pair(dataset: &Dataset, count: usize) -> Result<[Vec<f64>; 2], SessionError> {
    if dataset.shape() != [2, count] {
        return Err(wrong_shape(dataset, &format!("(2, {count})")));
    }
    let mut first = dataset.read_raw::<f64>().at(|| place(dataset))?;
    let second = first.split_off(count);
    Ok([first, second])
}

fn optional_pair(file: &File, name: &str, count: usize) -> Result<[Vec<f64>; 2], SessionError> {
    if !file.link_exists(name) {
        return Ok([vec![f64::NAN; count], vec![f64::NAN; count]]);
    }
    pair(&required(file, name)?, count)
}

/// The values of a `(1, N)` dataset; NaN where there is none.
fn optional(file: &File, name: &str, count: usize) -> Result<Vec<f64>, SessionError> {
    if !file.link_exists(name) {
        return Ok(vec![f64::NAN; count]);
    }
    let dataset = required(file, name)?;
    if dataset.shape() != [1, count] {
        return Err(wrong_shape(&dataset, &format!("(1, {count})")));
    }
    dataset.read_raw::<f64>().at(|| place(&dataset))
}
