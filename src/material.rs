//! Materials: lattice, polar variants and Born charges.
