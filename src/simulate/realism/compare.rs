//! A simulated image beside a real one: a table of numbers.

use super::{ImageStatistics, ProfilePoint};
use serde::Serialize;
use std::fmt::Write as _;

/// A real image and the simulated one of the same shape and pixel size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the real image.
    pub image: String,
    pub real: ImageStatistics,
    pub simulated: ImageStatistics,
}

/// A line of the table; NaN where an image does not show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quantity {
    /// A name for programs.
    pub key: &'static str,
    /// And for people.
    pub name: &'static str,
    /// Empty for a pure number.
    pub unit: &'static str,
    pub real: f64,
    pub simulated: f64,
}

/// The numbers that are compared, line by line.
pub fn quantities(real: &ImageStatistics, simulated: &ImageStatistics) -> Vec<Quantity> {
    let mut lines = Vec::new();
    let mut line = |key, name, unit, of: &dyn Fn(&ImageStatistics) -> f64| {
        lines.push(Quantity { key, name, unit, real: of(real), simulated: of(simulated) });
    };
    line("cell_a", "cell edge a", "pm", &|s| s.cell_a_pm);
    line("cell_b", "cell edge b", "pm", &|s| s.cell_b_pm);
    line("peak_to_background", "A column over background, pixel values", "", &|s| s.peak_to_background);
    line("b_height", "height of B over that of A", "", &|s| s.b_height);
    line("a_fwhm", "width of A at half height", "pm", &|s| s.a_fwhm_pm.unwrap_or(f64::NAN));
    line("b_fwhm", "width of B at half height", "pm", &|s| s.b_fwhm_pm.unwrap_or(f64::NAN));
    line("a_height_scatter", "scatter of A heights, column to column", "%", &|s| 100.0 * s.a_height_scatter);
    line("b_height_scatter", "scatter of B heights, column to column", "%", &|s| 100.0 * s.b_height_scatter);
    line("a_height_variation", "slow variation of A heights", "%", &|s| 100.0 * s.a_height_variation);
    line("p_mean_x", "mean P_x", "pm", &|s| s.p_mean_pm[0]);
    line("p_mean_y", "mean P_y", "pm", &|s| s.p_mean_pm[1]);
    line("p_scatter", "scatter of P from cell to cell, a component", "pm", &|s| s.p_scatter_pm);
    line("noise", "noise of a pixel over the height of A", "%", &|s| 100.0 * s.noise);
    line("noise_bright_to_dark", "noise variance, brightest over darkest eighth", "", &|s| {
        s.noise_bright_to_dark
    });
    line("noise_correlation", "correlation of neighbouring pixels' noise", "", &|s| s.noise_correlation);
    line("jitter", "jitter of lines", "pm", &|s| s.jitter_pm);
    line("jitter_across", "the same across (what noise makes of it)", "pm", &|s| s.jitter_across_pm);
    lines
}

impl Comparison {
    pub fn quantities(&self) -> Vec<Quantity> {
        quantities(&self.real, &self.simulated)
    }

    /// Root mean square difference of the mean A columns' profiles, and of the B columns', in units of the A columns' height.
    pub fn profile_differences(&self) -> [f64; 2] {
        [
            difference(&self.real.a_profile, &self.simulated.a_profile),
            difference(&self.real.b_profile, &self.simulated.b_profile),
        ]
    }

    /// Root mean square difference of the spectra's logarithms: of the whole power, and between the reflections; decades. Rings
    /// in which the real image has less than a ten thousandth of its strongest ring's power (a filter's stop band) are left out.
    pub fn spectrum_differences(&self) -> [f64; 2] {
        let strongest = self.real.spectrum.iter().map(|p| p.between).fold(0.0, f64::max);
        let pairs: Vec<_> = self
            .real
            .spectrum
            .iter()
            .zip(&self.simulated.spectrum)
            .filter(|(real, _)| real.between > 1e-4 * strongest)
            .collect();
        let decades = |a: f64, b: f64| (a / b).log10().powi(2);
        let root_mean = |sum: f64| (sum / pairs.len() as f64).sqrt();
        [
            root_mean(pairs.iter().map(|(real, simulated)| decades(real.mean, simulated.mean)).sum()),
            root_mean(pairs.iter().map(|(real, simulated)| decades(real.between, simulated.between)).sum()),
        ]
    }

    /// The whole-curve differences as lines below the quantities: name, unit, value.
    fn differences(&self) -> [(&'static str, &'static str, f64); 4] {
        let [a, b] = self.profile_differences();
        let [mean, between] = self.spectrum_differences();
        [
            ("difference of the A profiles, RMS", "%", 100.0 * a),
            ("difference of the B profiles, RMS", "%", 100.0 * b),
            ("difference of the power spectra, RMS", "decades", mean),
            ("difference of the spectra between the reflections, RMS", "decades", between),
        ]
    }

    /// A table in Markdown.
    pub fn to_markdown(&self) -> String {
        let image = self.image.replace('|', "_");
        let mut table = format!("| quantity | {image} | simulated | ratio |\n|---|---:|---:|---:|\n");
        for Quantity { name, unit, real, simulated, .. } in self.quantities() {
            let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
            // Writing to a string does not fail.
            let _ = writeln!(
                table,
                "| {name}{unit} | {} | {} | {} |",
                digits(real),
                digits(simulated),
                digits(simulated / real)
            );
        }
        for (name, unit, value) in self.differences() {
            let _ = writeln!(table, "| {name}, {unit} | | {} | |", digits(value));
        }
        table
    }

    /// `image,key,unit,real,simulated`, with a line of titles.
    pub fn to_csv(&self) -> String {
        let mut table = "image,quantity,unit,real,simulated\n".to_owned();
        let image = self.image.replace(['"', ',', '\n', '\r'], "_");
        for Quantity { key, unit, real, simulated, .. } in self.quantities() {
            let _ = writeln!(table, "{image},{key},{unit},{real},{simulated}");
        }
        table
    }
}

/// Three significant digits.
fn digits(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let decimals =
        if value == 0.0 { 2 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 4) as usize };
    format!("{value:.decimals$}")
}

fn difference(a: &[ProfilePoint], b: &[ProfilePoint]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (a.height - b.height).powi(2)).sum();
    (sum / a.len().min(b.len()) as f64).sqrt()
}
