//! polarization
