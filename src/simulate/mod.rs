//! Frames with known truth: a specimen of unlimited extent, a scan over a part of it, and what the detector counts.
//!
//! - [`Specimen`]: lattice, polarization, defects; the same site looks the same in every frame.
//! - [`Microscope`]: scan geometry, dose, blur, drift, detector.
//! - [`render`]: one frame of the specimen as the microscope sees it, with its [`Truth`].
//! - [`random_scene`]: varied scenes to train networks on.
//! - [`realism`]: how an image looks in numbers, to compare simulated frames with real ones.
//!
//! Frames of reference: the *specimen frame* holds the lattice and the defects; positions in it are `[y, x]` in nm, and y grows
//! downward. A scan has its centre at `center_nm` and is turned by `rotation_rad`, counter-clockwise as displayed, so a point
//! that lies `offset` from the centre of the field of view in the image lies `offset` turned by `rotation_rad` from `center_nm`
//! in the specimen. Vectors are `[x, y]` and, in the *lattice frame*, have x along the cell's a edge.

mod acquisition;
mod canvas;
mod detector;
mod lattice;
mod microscope;
mod polarization;
mod random;
pub mod realism;
mod render;
mod scene;
mod specimen;
#[cfg(test)]
mod tests;
mod truth;

pub use acquisition::{
    AcquisitionError, AcquisitionServer, Beam, Endpoints, FrameEncoding, Pace, ScanError, Scanned,
    ServerSettings,
};
pub use microscope::{Detector, Microscope, PixelType};
pub use polarization::{DomainWalls, Polarization};
pub use random::{TrainingRanges, random_scene};
pub use render::{SimulatedFrame, render};
pub use scene::{Scene, SceneError};
pub use specimen::{Background, Bend, Columns, Defect, RandomDefects, Specimen, Strain, Thickness};
pub use truth::{DefectKind, Truth, TruthCell, TruthColumn, TruthDefect};
