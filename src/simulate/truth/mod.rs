//! What a simulated frame really shows. Everything is in the image: positions in frame pixels, vectors `[x, y]` along its axes.
//!
//! Positions are those in a scan whose lines are where they belong, uniform drift during the frame included. What else displaces
//! lines and pixels is in [`Truth::scan`], and [`ScanField::imaged_px`] says where the frame shows a position.

mod build;
mod mask;

use super::scan_field::ScanField;
use crate::frame::{ClassicalCell, Sublattice};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// Ground truth of one frame.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// The unit cells whose centre lies in the frame; none where the crystal is seen along another axis than [100].
    pub cells: Vec<TruthCell>,
    /// The columns in the frame that the image shows, of all classes: none in amorphous patches, none of zero intensity.
    pub columns: Vec<TruthColumn>,
    /// The defects that reach into the frame: regions first, their boundaries, then what is smaller. See [`Truth::mask`].
    pub defects: Vec<TruthDefect>,
    /// Where the beam really went: jitter, flagging, curved drift, jumps, hum, flyback; which lines were lost.
    pub scan: ScanField,
    /// Where the detector was saturated, `[row, col]`; `None` for one that never is. Not written with the rest.
    #[serde(skip)]
    pub saturated: Option<Array2<bool>>,
}

/// One B-centred unit cell. Drift within the frame shears the image and is part of the cell; mistilt and line jitter are not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TruthCell {
    /// Mean of the four A columns (without mistilt), frame pixels.
    pub row: f64,
    pub col: f64,
    /// The B column (without mistilt), frame pixels.
    pub b_row: f64,
    pub b_col: f64,
    /// B minus the mean of its four A neighbours, pm, without mistilt.
    pub p_x: f64,
    pub p_y: f64,
    /// What mistilt adds to P in the image, pm: half the shift of B minus that of A.
    pub mistilt_x: f64,
    pub mistilt_y: f64,
    /// Tilt of the crystal, mrad, toward where it shifts the columns; of it follow the shifts in `mistilt`, but for those that
    /// the settings give in pm.
    pub tilt_x_mrad: f64,
    pub tilt_y_mrad: f64,
    /// Mean lengths of opposite edges, pm; `cell_a` is the edge nearer to the image's x axis.
    pub cell_a: f64,
    pub cell_b: f64,
    /// Angle between a (pointing right) and b (on the side of a that is clockwise as displayed, so mostly down), rad.
    pub cell_angle: f64,
    /// pm².
    pub cell_area: f64,
    /// Mean fraction of foreign atoms in its A columns, 0 to 1.
    pub composition: f64,
    /// The kind of the region that the B column is in: grain, stacking fault, antiphase, inclusion or substrate; `None` in the host.
    pub region: Option<DefectKind>,
    /// One of its five columns is changed by a defect or saturates the detector within half its height, an interstitial stands in it, or a dislocation's core is within a cell and a
    /// half. In an amorphous patch, the other values are those of the crystal that would have been there.
    pub disturbed: bool,
}

impl TruthCell {
    /// As a measurement without error would report the cell: centred on the middle of its A columns, with the P that the
    /// image shows.
    pub fn as_measured(&self) -> ClassicalCell {
        ClassicalCell {
            row: self.row,
            col: self.col,
            p_x: self.p_x + self.mistilt_x,
            p_y: self.p_y + self.mistilt_y,
            cell_a: self.cell_a,
            cell_b: self.cell_b,
            cell_angle: self.cell_angle,
            cell_area: self.cell_area,
        }
    }
}

/// One column where a scan without displaced lines shows it: mistilt and uniform drift included, line jitter and the like not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TruthColumn {
    pub row: f64,
    pub col: f64,
    pub class: ColumnClass,
    /// Peak height; 1 = an undisturbed A column.
    pub intensity: f64,
}

impl TruthColumn {
    /// `None` for oxygen and interstitials, which the networks and the classical measurement know nothing of.
    pub const fn sublattice(&self) -> Option<Sublattice> {
        self.class.sublattice()
    }
}

/// What a column is. The numbers of A and B are those on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ColumnClass {
    B = 0,
    A = 1,
    /// A pure oxygen column, in the middle of an edge of the cell.
    Oxygen = 2,
    /// A column where the lattice has no site.
    Interstitial = 3,
}

impl From<Sublattice> for ColumnClass {
    fn from(sublattice: Sublattice) -> Self {
        match sublattice {
            Sublattice::A => Self::A,
            Sublattice::B => Self::B,
        }
    }
}

impl ColumnClass {
    /// Every class, in the order of its number.
    pub const ALL: [Self; 4] = [Self::B, Self::A, Self::Oxygen, Self::Interstitial];

    /// The sublattice of a cation column.
    pub const fn sublattice(self) -> Option<Sublattice> {
        match self {
            Self::A => Some(Sublattice::A),
            Self::B => Some(Sublattice::B),
            Self::Oxygen | Self::Interstitial => None,
        }
    }
}

/// A defect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TruthDefect {
    pub kind: DefectKind,
    /// Its middle, or a place of it near the middle of the frame.
    pub row: f64,
    pub col: f64,
    /// Radius of what it changes: the patch, or half a cell edge for a single column, or half the width of a boundary.
    pub radius_px: f64,
    pub extent: Extent,
}

/// Which pixels a defect changes; corners `[row, col]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Those within `radius_px` of its middle.
    Disc,
    /// Those within the polygon, which may reach far beyond the frame.
    Area(Vec<[f64; 2]>),
    /// Those within `radius_px` of the path.
    Path(Vec<[f64; 2]>),
}

/// Kinds of defects and regions. The numbers are the codes of [`Truth::mask`]; 0 is the undisturbed host crystal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum DefectKind {
    VacancyA = 1,
    VacancyB = 2,
    VacancyO = 3,
    /// Foreign atoms in a column of the A, or the B, sublattice.
    SubstitutionA = 4,
    SubstitutionB = 5,
    /// Atoms of the B sublattice in a column of the A sublattice, and the other way round.
    AntisiteA = 6,
    AntisiteB = 7,
    /// A column where the lattice has no site.
    Interstitial = 8,
    /// The core of a dislocation.
    Dislocation = 9,
    /// The boundary of a region that is shifted by a fault vector.
    StackingFault = 10,
    /// The boundary beyond which A and B have changed places.
    Antiphase = 11,
    /// The boundary of a grain.
    GrainBoundary = 12,
    /// The crystal of the host, turned.
    Grain = 13,
    Amorphous = 14,
    /// No specimen.
    Vacuum = 15,
    /// Its boundary.
    Surface = 16,
    /// Background on top of the crystal.
    Contamination = 17,
    /// Another material.
    Inclusion = 18,
    /// The host's material along another zone axis.
    ZoneAxis = 19,
    Substrate = 20,
    /// Its boundary.
    Interface = 21,
}

impl DefectKind {
    /// Every kind, in the order of its code.
    pub const ALL: [Self; 21] = [
        Self::VacancyA,
        Self::VacancyB,
        Self::VacancyO,
        Self::SubstitutionA,
        Self::SubstitutionB,
        Self::AntisiteA,
        Self::AntisiteB,
        Self::Interstitial,
        Self::Dislocation,
        Self::StackingFault,
        Self::Antiphase,
        Self::GrainBoundary,
        Self::Grain,
        Self::Amorphous,
        Self::Vacuum,
        Self::Surface,
        Self::Contamination,
        Self::Inclusion,
        Self::ZoneAxis,
        Self::Substrate,
        Self::Interface,
    ];

    /// The number that stands for it in [`Truth::mask`].
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether it is planted at a position by [`Defect`](super::Defect).
    pub(super) const fn is_planted(self) -> bool {
        (self as u8) <= Self::Interstitial as u8 || matches!(self, Self::Amorphous | Self::Contamination)
    }

    pub(super) const fn is_antisite(self) -> bool {
        matches!(self, Self::AntisiteA | Self::AntisiteB)
    }

    /// What the pixels within a region of this kind are: itself, or the host where only the boundary tells it from the host.
    pub(super) const fn interior(self) -> Option<Self> {
        match self {
            Self::StackingFault | Self::Antiphase => None,
            kind => Some(kind),
        }
    }

    /// What the boundary of a region of this kind is, where it is something.
    pub(super) const fn boundary(self) -> Option<Self> {
        match self {
            Self::Grain => Some(Self::GrainBoundary),
            Self::Vacuum => Some(Self::Surface),
            Self::Substrate => Some(Self::Interface),
            Self::Amorphous => None,
            kind => Some(kind),
        }
    }
}
