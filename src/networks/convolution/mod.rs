//! Convolutions for CPUs, specialised for networks of 3 × 3 kernels with many channels.
//!
//! Pure functions of slices: nothing here knows of burn. Channels lie in blocks of [`LANES`] beside each other
//! ([`map`]), so that a vector register holds one pixel's channels and no kernel ever shuffles. 3 × 3 convolutions go by
//! Winograd's algorithm ([`winograd`]), all others as they are defined ([`direct`]); both compute their sums in registers
//! from one inner loop ([`simd`]), compiled for AVX-512, AVX2 and plain arithmetic and chosen at run time. Bias,
//! LeakyReLU, normalisation and pooling happen before a sum leaves the registers. Training asks for derivatives too: those of
//! a map are a Winograd convolution themselves, those of weights have their own sums ([`gradient`]).
//!
//! A whole network runs by rows ([`stream`]): memory grows with the width of an image alone, and what one layer wrote is
//! still in the cache when the next one reads it.

pub(crate) mod direct;
pub(crate) mod gradient;
pub(crate) mod map;
pub(crate) mod simd;
pub(crate) mod sites;
pub(crate) mod stream;
mod transforms;
pub(crate) mod upsample;
pub(crate) mod winograd;

#[cfg(test)]
mod tests;
