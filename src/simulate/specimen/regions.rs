//! Parts of the specimen where something else than the host crystal is: grains, inclusions, faults, vacuum, a substrate.

use super::columns::Phase;
use crate::config::InvalidSetting;
use crate::simulate::check::Check;
use serde::{Deserialize, Serialize};

/// A part of the specimen and what is in it. Later regions lie over earlier ones. Where two lattices meet and two columns would
/// stand nearer to each other than half a cell edge, the one of the later region is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    pub shape: Shape,
    pub content: Content,
}

/// Where a region is; positions `[y, x]` in nm in the specimen frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// Everything beyond a line, on the side that its normal points to.
    HalfPlane {
        at_nm: [f64; 2],
        /// Counter-clockwise from the x axis as displayed.
        normal_rad: f64,
        #[serde(default)]
        edge: Edge,
    },
    /// What lies between two parallel lines, `width_nm` apart, with the position in the middle.
    Strip {
        at_nm: [f64; 2],
        normal_rad: f64,
        width_nm: f64,
        #[serde(default)]
        edge: Edge,
    },
    Circle {
        center_nm: [f64; 2],
        radius_nm: f64,
    },
    /// 3 to 64 corners in order, without crossings.
    Polygon {
        corners_nm: Vec<[f64; 2]>,
    },
}

/// How a straight boundary wanders.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edge {
    /// Standard deviation from the straight line, 0 to 10 nm.
    pub roughness_nm: f64,
    /// Over which length along the line, 0.5 to 1000 nm.
    pub wavelength_nm: f64,
}

/// What is in a region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Content {
    /// The host's crystal, turned and shifted as a whole; without its strain fields and dislocations.
    Grain {
        /// Counter-clockwise from the host's a.
        rotation_rad: f64,
        /// Of the lattice's origin, `[x, y]` in the specimen frame.
        #[serde(default)]
        shift_pm: [f64; 2],
    },
    /// The host's crystal, shifted by the fault vector.
    StackingFault {
        /// In cell edges `[a, b]`.
        shift_cells: [f64; 2],
    },
    /// The host's crystal, shifted by half a cell unless told otherwise, so that A and B have changed places beyond the boundary.
    Antiphase {
        #[serde(default = "half_a_cell")]
        shift_cells: [f64; 2],
    },
    /// Another crystal.
    Inclusion {
        phase: Phase,
        #[serde(default)]
        zone_axis: ZoneAxis,
        /// Counter-clockwise from the host's a.
        #[serde(default)]
        rotation_rad: f64,
    },
    /// The host's material seen along another axis.
    ZoneAxis {
        zone_axis: ZoneAxis,
        #[serde(default)]
        rotation_rad: f64,
    },
    /// No lattice: the columns that would be here are scattered and washed out.
    Amorphous,
    /// Nothing: neither columns nor the specimen's background.
    Vacuum,
}

/// The crystal's direction along the beam.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZoneAxis {
    #[default]
    #[serde(rename = "100")]
    Z100,
    /// A cell of a / √2 (along `[1 -1 0]`) by b: A (with O) on the corners, B in the middle of the edge along b, O in the middle.
    #[serde(rename = "110")]
    Z110,
}

const fn half_a_cell() -> [f64; 2] {
    [0.5, 0.5]
}

impl Default for Edge {
    fn default() -> Self {
        Self { roughness_nm: 0.0, wavelength_nm: 5.0 }
    }
}

impl Edge {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        check.within("roughness_nm", self.roughness_nm, [0.0, 10.0])?;
        check.within("wavelength_nm", self.wavelength_nm, [0.5, 1000.0])
    }
}

impl Region {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        self.shape.validate(&check.key("shape"))?;
        self.content.validate(&check.key("content"))
    }
}

impl Shape {
    fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        match self {
            Self::HalfPlane { at_nm, normal_rad, edge } => {
                check.position("at_nm", *at_nm)?;
                check.angle("normal_rad", *normal_rad)?;
                edge.validate(&check.key("edge"))
            }
            Self::Strip { at_nm, normal_rad, width_nm, edge } => {
                check.position("at_nm", *at_nm)?;
                check.angle("normal_rad", *normal_rad)?;
                check.within("width_nm", *width_nm, [0.1, 1e6])?;
                edge.validate(&check.key("edge"))
            }
            Self::Circle { center_nm, radius_nm } => {
                check.position("center_nm", *center_nm)?;
                check.within("radius_nm", *radius_nm, [0.1, 1e6])
            }
            Self::Polygon { corners_nm } => {
                let expected = "3 to 64 corners";
                check.that((3..=64).contains(&corners_nm.len()), "corners_nm", corners_nm, expected)?;
                corners_nm.iter().try_for_each(|corner| check.position("corners_nm", *corner))
            }
        }
    }
}

impl Content {
    fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        let within_a_cell = |shift: &[f64; 2]| shift.iter().all(|s| s.abs() <= 1.0);
        match self {
            Self::Grain { rotation_rad, shift_pm } => {
                check.angle("rotation_rad", *rotation_rad)?;
                let near = shift_pm.iter().all(|s| s.abs() <= 1e4);
                check.that(near, "shift_pm", shift_pm, "components of at most 10000")
            }
            Self::StackingFault { shift_cells } | Self::Antiphase { shift_cells } => {
                check.that(within_a_cell(shift_cells), "shift_cells", shift_cells, "at most one cell edge")
            }
            Self::Inclusion { phase, rotation_rad, .. } => {
                phase.validate(&check.key("phase"))?;
                check.angle("rotation_rad", *rotation_rad)
            }
            Self::ZoneAxis { rotation_rad, .. } => check.angle("rotation_rad", *rotation_rad),
            Self::Amorphous | Self::Vacuum => Ok(()),
        }
    }
}

/// The crystal that the host, then a film, has grown on. Both share their lattice rows across the interface, which lies along one
/// of the host's edges; how they come to terms with their different cells is `relaxed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Substrate {
    pub phase: Phase,
    /// Which way the substrate lies, seen from the film, along the host's edges.
    pub toward: Toward,
    /// Position of the interface along that direction, nm from the specimen's origin.
    pub at_nm: f64,
    #[serde(default)]
    pub edge: Edge,
    /// Fraction of the misfit that is taken up by a row of misfit dislocations at the interface, one edge apart in Burgers vector
    /// and evenly spaced. 0: the film takes the substrate's spacing along the interface everywhere, and stretches or shrinks
    /// across it by Poisson's ratio. 1: away from the interface, over about the dislocations' distance / 2π, each has its own cell.
    pub relaxed: f64,
    #[serde(default = "super::strain::usual_poisson_ratio")]
    pub poisson_ratio: f64,
    /// Full width 2ξ of the profile ½ (1 - tanh(s / ξ)) with which the film's P gives way to the substrate's.
    pub polarization_width_nm: f64,
}

/// A direction of the host's lattice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Toward {
    #[serde(rename = "a")]
    A,
    #[serde(rename = "-a")]
    MinusA,
    #[serde(rename = "b")]
    B,
    #[serde(rename = "-b")]
    MinusB,
}

impl Substrate {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        self.phase.validate(&check.key("phase"))?;
        check.position("at_nm", [self.at_nm, 0.0])?;
        self.edge.validate(&check.key("edge"))?;
        check.within("relaxed", self.relaxed, [0.0, 1.0])?;
        check.within("poisson_ratio", self.poisson_ratio, [0.0, 0.49])?;
        check.within("polarization_width_nm", self.polarization_width_nm, [0.01, 1e4])
    }
}
