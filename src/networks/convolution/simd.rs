//! Vector instructions, chosen at run time.

#![allow(clippy::needless_range_loop, clippy::manual_map, reason = "see super::transforms")]

use super::map::{Activation, Block, Filters, LANES, in_blocks};
use crate::networks::LEAKY_SLOPE;
use pulp::{Scalar128b, Simd, WithSimd};

/// The vector instructions that a kernel is compiled for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    /// Four lanes of plain arithmetic, which every target's compiler turns into what that target always has.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
}

impl Level {
    /// Every level that this processor has, the best last.
    pub(crate) fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other processors have no more than one")]
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(pulp::x86::V3::try_new().map(Self::Avx2));
            levels.extend(pulp::x86::V4::try_new().map(Self::Avx512));
        }
        levels
    }

    /// The best that this processor has.
    pub(crate) fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::Portable)
    }

    /// Runs a kernel compiled for this level.
    pub(crate) fn run<K: Kernel>(self, kernel: K) {
        match self {
            Self::Portable => Scalar128b.vectorize(Compiled::<K, PORTABLE_VECTORS, 3>(kernel)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => Simd::vectorize(simd, Compiled::<K, 2, 6>(kernel)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => Simd::vectorize(simd, Compiled::<K, 1, 12>(kernel)),
        }
    }
}

/// Every `P` of [`Kernel::run`] divides this.
pub(crate) const PIXELS_DIVIDE: usize = 12;

/// Vectors a [`Block`] at [`Level::Portable`], where no fused multiplication and addition is to be counted on.
const PORTABLE_VECTORS: usize = 4;

/// Code that is compiled once for every level.
pub(crate) trait Kernel {
    /// `V` vectors make a [`Block`]; the sums of `P` pixels are kept in registers.
    fn run<S: Simd, const V: usize, const P: usize>(self, simd: S);
}

struct Compiled<K, const V: usize, const P: usize>(K);

impl<K: Kernel, const V: usize, const P: usize> WithSimd for Compiled<K, V, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.run::<S, V, P>(simd);
    }
}

/// A [`Block`] in registers.
pub(crate) type Vectors<S, const V: usize> = [<S as Simd>::f32s; V];

#[inline(always)]
pub(crate) fn load<S: Simd, const V: usize>(block: &Block) -> Vectors<S, V> {
    let mut vectors = [part::<S>(block, 0); V];
    for v in 1..V {
        vectors[v] = part::<S>(block, v);
    }
    vectors
}

#[inline(always)]
pub(crate) fn store<S: Simd, const V: usize>(block: &mut Block, vectors: Vectors<S, V>) {
    for (v, vector) in vectors.into_iter().enumerate() {
        put::<S>(block, v, vector);
    }
}

/// Vector `v` of a block.
#[inline(always)]
pub(crate) fn part<S: Simd>(block: &Block, v: usize) -> S::f32s {
    S::as_simd_f32s(&block.0).0[v]
}

#[inline(always)]
pub(crate) fn put<S: Simd>(block: &mut Block, v: usize, vector: S::f32s) {
    S::as_mut_simd_f32s(&mut block.0).0[v] = vector;
}

/// `a * b + c`.
#[inline(always)]
pub(crate) fn multiply_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    if LANES / S::F32_LANES == PORTABLE_VECTORS {
        simd.add_f32s(simd.mul_f32s(a, b), c)
    } else {
        simd.mul_add_f32s(a, b, c)
    }
}

/// Adds one tap of a convolution to the sums of `P` pixels: `N` input channels to a block of output channels.
///
/// `weights` is `[input channel]`, a block of output channels each.
#[inline(always)]
pub(crate) fn accumulate<S: Simd, const V: usize, const P: usize, const N: usize>(
    simd: S,
    sums: &mut [Vectors<S, V>; P],
    pixels: [&[f32; N]; P],
    weights: &[Block; N],
) {
    for channel in 0..N {
        let weight = load::<S, V>(&weights[channel]);
        for p in 0..P {
            let value = simd.splat_f32s(pixels[p][channel]);
            for v in 0..V {
                sums[p][v] = multiply_add(simd, value, weight[v], sums[p][v]);
            }
        }
    }
}

/// Adds products over pixels to the sums of `N` input channels, from `first` of their block on, with a block of output
/// channels.
#[inline(always)]
pub(crate) fn accumulate_pixels<S: Simd, const V: usize, const N: usize>(
    simd: S,
    sums: &mut [Vectors<S, V>; N],
    [inputs, outputs]: [&[Block]; 2],
    first: usize,
) {
    for (inputs, outputs) in inputs.iter().zip(outputs) {
        let outputs = load::<S, V>(outputs);
        if let Some(inputs) = inputs.0[first..].first_chunk::<N>() {
            for n in 0..N {
                let value = simd.splat_f32s(inputs[n]);
                for v in 0..V {
                    sums[n][v] = multiply_add(simd, value, outputs[v], sums[n][v]);
                }
            }
        }
    }
}

/// What follows a convolution's sums: bias, activation, normalisation.
#[derive(Debug, Clone)]
pub(crate) struct Epilogue {
    bias: Vec<Block>,
    activation: Activation,
    affine: Option<(Vec<Block>, Vec<Block>)>,
}

impl Epilogue {
    pub(crate) fn new(filters: &Filters) -> Self {
        let affine = filters.affine.as_ref();
        Self {
            bias: in_blocks(&filters.bias, 0.0),
            activation: filters.activation,
            affine: affine.map(|(scale, shift)| (in_blocks(scale, 0.0), in_blocks(shift, 0.0))),
        }
    }

    /// For vector `v` of an output block.
    #[inline(always)]
    pub(crate) fn of<S: Simd>(&self, simd: S, block: usize, v: usize) -> VectorEpilogue<S> {
        let slope = match self.activation {
            Activation::None => 1.0,
            Activation::Leaky => LEAKY_SLOPE as f32,
        };
        let affine = match &self.affine {
            Some((scale, shift)) => Some((part::<S>(&scale[block], v), part::<S>(&shift[block], v))),
            None => None,
        };
        VectorEpilogue { bias: part::<S>(&self.bias[block], v), slope: simd.splat_f32s(slope), affine }
    }
}

/// [`Epilogue`] of one vector of channels.
#[derive(Clone, Copy)]
pub(crate) struct VectorEpilogue<S: Simd> {
    bias: S::f32s,
    slope: S::f32s,
    affine: Option<(S::f32s, S::f32s)>,
}

impl<S: Simd> VectorEpilogue<S> {
    #[inline(always)]
    pub(crate) fn apply(&self, simd: S, sum: S::f32s) -> S::f32s {
        let biased = simd.add_f32s(sum, self.bias);
        // A slope below 1 makes the larger one the right one on either side of zero.
        let activated = simd.max_f32s(biased, simd.mul_f32s(biased, self.slope));
        match self.affine {
            Some((scale, shift)) => multiply_add(simd, activated, scale, shift),
            None => activated,
        }
    }
}
