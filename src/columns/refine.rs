//! One column: a Gaussian fitted to the pixels around it.

use levenberg_marquardt::{LeastSquaresProblem, LevenbergMarquardt, TerminationReason};
use nalgebra::{ArrayStorage, VecStorage};
use nalgebra::{Const, Dyn, OMatrix, OVector, SVector, U1};
use ndarray::Array2;

/// Relative change of parameters and residuals at which a fit has converged: hundredths of the statistical error.
const TOLERANCE: f64 = 1e-6;
/// Function evaluations a parameter before a fit is given up.
const PATIENCE: usize = 12;

/// Where each parameter stands.
const AMPLITUDE: usize = 0;
const ROW: usize = 1;
const COL: usize = 2;
const BACKGROUND: usize = 3;
/// The inverse variance, 1/px².
const PRECISION: usize = 4;
const PARAMETERS: usize = 5;
type Parameters = SVector<f64, PARAMETERS>;
/// Where fits start: the standard deviation over half the box's side.
const START_SIGMA: f64 = 0.7;

/// A Gaussian on a constant background, fitted by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GaussianFit {
    /// Centre, frame pixels.
    pub row: f64,
    pub col: f64,
    /// Standard errors of the centre from the fit's curvature and residuals, frame pixels.
    pub row_error: f64,
    pub col_error: f64,
    /// Height above the background, the frame's unit.
    pub amplitude: f64,
    /// Its standard error.
    pub amplitude_error: f64,
    pub background: f64,
    /// Standard deviation of the Gaussian, frame pixels; the geometric mean of an ellipse's two.
    pub sigma_px: f64,
}

/// Fits a round Gaussian and a constant background to the pixels within `half_side_px` of `at` = `[row, col]`, by rows and columns.
///
/// `None` when fewer finite pixels than parameters and two lie there, or the fit does not converge to a peak in the box.
pub fn fit_gaussian(pixels: &Array2<f32>, at: [f64; 2], half_side_px: f64) -> Option<GaussianFit> {
    let samples = samples(pixels, at, half_side_px)?;
    let (low, high) = samples.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), sample| {
        (low.min(sample.value), high.max(sample.value))
    });
    let scale = high - low;
    if !(scale > 0.0 && scale.is_finite()) {
        return None;
    }
    // Counts of any unit become numbers near 1, relative to `at`: the tolerances then mean the same everywhere.
    let samples: Vec<Sample> =
        samples.into_iter().map(|sample| Sample { value: (sample.value - low) / scale, ..sample }).collect();
    let precision = (START_SIGMA * half_side_px).powi(-2);
    let (parameters, errors) = minimise(&samples, SVector::from([1.0, 0.0, 0.0, 0.0, precision]))?;
    let fit = describe(&parameters, errors)?;
    let inside = fit.row.abs() <= half_side_px && fit.col.abs() <= half_side_px;
    inside.then(|| GaussianFit {
        row: at[0] + fit.row,
        col: at[1] + fit.col,
        amplitude: fit.amplitude * scale,
        amplitude_error: fit.amplitude_error * scale,
        background: fit.background * scale + low,
        ..fit
    })
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// From the box's centre, pixels.
    row: f64,
    col: f64,
    value: f64,
}

fn samples(pixels: &Array2<f32>, at: [f64; 2], half_side_px: f64) -> Option<Vec<Sample>> {
    let (rows, cols) = pixels.dim();
    let range = |centre: f64, length: usize| {
        let from = (centre - half_side_px).ceil().max(0.0) as usize;
        let to = ((centre + half_side_px).floor() + 1.0).max(0.0) as usize;
        from..to.min(length)
    };
    if !at.iter().all(|coordinate| coordinate.is_finite()) {
        return None;
    }
    let cols = range(at[1], cols);
    let samples: Vec<Sample> = range(at[0], rows)
        .flat_map(|row| cols.clone().map(move |col| (row, col)))
        .filter_map(|(row, col)| {
            let value = f64::from(pixels[[row, col]]);
            value.is_finite().then(|| Sample { row: row as f64 - at[0], col: col as f64 - at[1], value })
        })
        .collect();
    (samples.len() >= PARAMETERS + 2).then_some(samples)
}

/// A Gaussian against samples.
struct Problem<'a> {
    samples: &'a [Sample],
    parameters: Parameters,
    /// For each sample the offset `[row, col]` from the centre, and the Gaussian of height 1 there.
    shapes: Vec<([f64; 2], f64)>,
}

impl<'a> Problem<'a> {
    fn new(samples: &'a [Sample], parameters: Parameters) -> Self {
        let mut problem = Self { samples, parameters, shapes: Vec::with_capacity(samples.len()) };
        problem.set_params(&parameters);
        problem
    }
}

impl LeastSquaresProblem<f64, Dyn, Const<PARAMETERS>> for Problem<'_> {
    type ResidualStorage = VecStorage<f64, Dyn, U1>;
    type JacobianStorage = VecStorage<f64, Dyn, Const<PARAMETERS>>;
    type ParameterStorage = ArrayStorage<f64, PARAMETERS, 1>;

    fn set_params(&mut self, parameters: &Parameters) {
        self.parameters = *parameters;
        self.shapes.clear();
        self.shapes.extend(self.samples.iter().map(|sample| {
            let (dr, dc) = (sample.row - parameters[ROW], sample.col - parameters[COL]);
            ([dr, dc], (-0.5 * parameters[PRECISION] * (dr * dr + dc * dc)).exp())
        }));
    }

    fn params(&self) -> Parameters {
        self.parameters
    }

    fn residuals(&self) -> Option<OVector<f64, Dyn>> {
        let p = &self.parameters;
        Some(OVector::<f64, Dyn>::from_iterator(
            self.samples.len(),
            self.samples
                .iter()
                .zip(&self.shapes)
                .map(|(sample, (_, gaussian))| p[AMPLITUDE] * gaussian + p[BACKGROUND] - sample.value),
        ))
    }

    fn jacobian(&self) -> Option<OMatrix<f64, Dyn, Const<PARAMETERS>>> {
        let precision = self.parameters[PRECISION];
        let mut jacobian = OMatrix::<f64, Dyn, Const<PARAMETERS>>::zeros(self.samples.len());
        for (index, &([dr, dc], gaussian)) in self.shapes.iter().enumerate() {
            let height = self.parameters[AMPLITUDE] * gaussian;
            jacobian[(index, AMPLITUDE)] = gaussian;
            jacobian[(index, ROW)] = height * precision * dr;
            jacobian[(index, COL)] = height * precision * dc;
            jacobian[(index, BACKGROUND)] = 1.0;
            jacobian[(index, PRECISION)] = -0.5 * height * (dr * dr + dc * dc);
        }
        Some(jacobian)
    }
}

/// Parameters at the minimum and the standard errors of amplitude, row and column; `None` without convergence.
fn minimise(samples: &[Sample], start: Parameters) -> Option<(Parameters, [f64; 3])> {
    let (problem, report) = LevenbergMarquardt::new()
        .with_tol(TOLERANCE)
        .with_patience(PATIENCE)
        .minimize(Problem::new(samples, start));
    // On data without noise the residuals reach rounding before the tolerance says so.
    let converged = report.termination.was_successful()
        || matches!(report.termination, TerminationReason::NoImprovementPossible(_));
    if !converged {
        return None;
    }
    let jacobian = problem.jacobian()?;
    let degrees_of_freedom = samples.len().saturating_sub(PARAMETERS).max(1) as f64;
    let variance = 2.0 * report.objective_function / degrees_of_freedom;
    let covariance = jacobian.tr_mul(&jacobian).try_inverse()?;
    let error = |index: usize| (variance * covariance[(index, index)]).max(0.0).sqrt();
    Some((problem.parameters, [AMPLITUDE, ROW, COL].map(error)))
}

/// `None` where the parameters describe no peak.
fn describe(parameters: &Parameters, errors: [f64; 3]) -> Option<GaussianFit> {
    let peak = parameters[PRECISION] > 0.0 && parameters[AMPLITUDE] > 0.0;
    let finite = parameters.iter().all(|parameter| parameter.is_finite());
    (peak && finite).then(|| GaussianFit {
        row: parameters[ROW],
        col: parameters[COL],
        row_error: errors[ROW],
        col_error: errors[COL],
        amplitude: parameters[AMPLITUDE],
        amplitude_error: errors[AMPLITUDE],
        background: parameters[BACKGROUND],
        sigma_px: parameters[PRECISION].powf(-0.5),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Poisson};

    /// `[row, col, height]` of each Gaussian.
    fn image(size: usize, peaks: &[[f64; 3]], sigma: f64) -> Array2<f32> {
        let mut image = Array2::from_elem((size, size), 20.0_f32);
        for &[row, col, height] in peaks {
            let near = |centre: f64| {
                ((centre - 6.0 * sigma).max(0.0) as usize)..((centre + 6.0 * sigma) as usize).min(size)
            };
            for r in near(row) {
                for c in near(col) {
                    let square = (r as f64 - row).powi(2) + (c as f64 - col).powi(2);
                    image[[r, c]] += (height * (-0.5 * square / (sigma * sigma)).exp()) as f32;
                }
            }
        }
        image
    }

    #[test]
    fn a_lone_gaussian_is_found_exactly() {
        let pixels = image(40, &[[19.37, 20.81, 300.0]], 3.0);
        let fit = fit_gaussian(&pixels, [20.0, 20.0], 6.0).unwrap();
        assert!((fit.row - 19.37).abs() < 1e-4 && (fit.col - 20.81).abs() < 1e-4, "{fit:?}");
        assert!((fit.sigma_px - 3.0).abs() < 1e-3 && (fit.amplitude - 300.0).abs() < 0.1, "{fit:?}");
        assert!((fit.background - 20.0).abs() < 0.1 && fit.row_error < 1e-3);
    }

    #[test]
    fn the_jacobian_is_the_derivative() {
        let samples: Vec<Sample> = (0..20)
            .map(|i| Sample {
                row: f64::from(i % 5) - 2.0,
                col: f64::from(i / 5) - 1.5,
                value: f64::from(i) / 20.0,
            })
            .collect();
        let parameters = SVector::from([0.8, 0.2, -0.3, 0.1, 0.4]);
        let jacobian = Problem::new(&samples, parameters).jacobian().unwrap();
        for parameter in 0..PARAMETERS {
            let residuals = |step: f64| {
                let mut moved = parameters;
                moved[parameter] += step;
                Problem::new(&samples, moved).residuals().unwrap()
            };
            let numeric = (residuals(1e-6) - residuals(-1e-6)) / 2e-6;
            assert!((numeric - jacobian.column(parameter)).amax() < 1e-7, "parameter {parameter}");
        }
    }

    #[test]
    fn errors_are_those_of_repeated_fits() {
        let clean = image(30, &[[15.2, 14.7, 100.0]], 3.0);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let fits: Vec<GaussianFit> = (0..200)
            .map(|_| {
                let noisy = clean.mapv(|mean| Poisson::new(f64::from(mean)).unwrap().sample(&mut rng) as f32);
                fit_gaussian(&noisy, [15.0, 15.0], 7.0).unwrap()
            })
            .collect();
        let scatter = (fits.iter().map(|fit| (fit.row - 15.2).powi(2)).sum::<f64>() / 200.0).sqrt();
        let claimed = fits.iter().map(|fit| fit.row_error).sum::<f64>() / 200.0;
        assert!((claimed / scatter - 1.0).abs() < 0.25, "claimed {claimed}, scatter {scatter}");
    }

    #[test]
    fn hopeless_boxes_have_no_fit() {
        let mut pixels = Array2::from_elem((30, 30), 4.0);
        assert_eq!(fit_gaussian(&pixels, [15.0, 15.0], 4.0), None);
        assert_eq!(fit_gaussian(&pixels, [-20.0, 15.0], 4.0), None);
        assert_eq!(fit_gaussian(&pixels, [f64::NAN, 15.0], 4.0), None);
        pixels.fill(f32::NAN);
        assert_eq!(fit_gaussian(&pixels, [15.0, 15.0], 4.0), None);
    }
}
