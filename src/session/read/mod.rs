//! One file a format, and what they share. [`reader`](super::reader) tells the formats apart.
//!
//! HDF5 formats give a [`Stack`](dataset::Stack), a dataset whose axes are known, and are listed in
//! [`hdf5`]; the others implement [`FrameReader`](super::FrameReader) themselves.

pub(super) mod asyncroscopy;
pub(super) mod contents;
pub(super) mod dataset;
pub(super) mod dm;
pub(super) mod dm_tags;
pub(super) mod emd;
pub(super) mod facts;
pub(super) mod hdf5;
pub(super) mod hyperspy;
pub(super) mod ndata;
pub(super) mod nexus;
pub(super) mod nion;
pub(super) mod npy;
pub(super) mod nsid;
pub(super) mod objects;
pub(super) mod smbfo;
pub(super) mod tiff;
pub(super) mod tiff_labels;
pub(super) mod units;
pub(super) mod velox;
