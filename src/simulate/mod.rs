//! Frames with known truth: a specimen of unlimited extent, a scan over a part of it, and what the detector counts.
//!
//! - [`Specimen`]: lattice, fields, regions, polarization, defects; the same site looks the same in every frame.
//! - [`Microscope`]: scan geometry, dose, blur, tilt, distortions of the scan, detector.
//! - [`render`]: one frame of the specimen as the microscope sees it, with its [`Truth`] and, on demand, its mask of defects.
//! - [`random_scene`]: varied scenes to train networks on.
//! - [`realism`]: how an image looks in numbers, to compare simulated frames with real ones.
//!
//! Frames of reference: the *specimen frame* holds the lattice and the defects; positions in it are `[y, x]` in nm, and y grows
//! downward. A scan has its centre at `center_nm` and is turned by `rotation_rad`, counter-clockwise as displayed, so a point
//! that lies `offset` from the centre of the field of view in the image lies `offset` turned by `rotation_rad` from `center_nm`
//! in the specimen. Vectors are `[x, y]` and, in the *lattice frame*, have x along the cell's a edge.

mod acquisition;
mod canvas;
mod check;
mod detector;
mod faults;
mod hash;
#[cfg(test)]
mod imperfections;
mod lattice;
mod microscope;
mod place;
mod plane;
mod poisson;
mod polarization;
mod random;
mod rarities;
pub mod realism;
mod render;
mod scan_field;
mod scene;
mod specimen;
#[cfg(test)]
mod tests;
mod truth;
mod view;

pub use acquisition::{
    AcquisitionError, AcquisitionServer, Beam, Endpoints, FrameEncoding, Pace, ScanError, Scanned,
    ServerSettings,
};
pub use faults::Faults;
pub use microscope::{
    Afterglow, Detector, Distortions, Flagging, Flicker, Flyback, Hum, Jumps, LostAs, LostLines, Microscope,
    PixelType, SubScan, Tilt,
};
pub use polarization::{DomainWalls, Polarization, WallKind};
pub use random::{TrainingRanges, random_scene};
pub use rarities::Rarities;
pub use render::{SimulatedFrame, render};
pub use scan_field::ScanField;
pub(crate) use scan_field::WithinLine;
pub use scene::{Scene, SceneError};
pub use specimen::{
    Alloy, Background, Bend, Columns, Composition, Content, Defect, Dislocation, Edge, Phase, RandomDefects,
    Region, Shape, Specimen, Strain, StrainField, Substrate, Tails, Thickness, Toward, ZoneAxis,
};
pub use truth::{ColumnClass, DefectKind, Extent, Truth, TruthCell, TruthColumn, TruthDefect};
