//! A polarization, ready to be asked at every site.

use super::Polarization;
use super::mosaic::Mosaic;
use super::walls::DomainWalls;
use crate::simulate::microscope::turned;

/// The lattice that a polarization belongs to.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulate) struct Host<'a> {
    pub variants_pm: &'a [[f64; 2]],
    /// Direction of a, counter-clockwise from the specimen's x axis as displayed.
    pub rotation_rad: f64,
    pub seed: u64,
}

/// A [`Polarization`] with everything looked up that does not depend on the position.
#[derive(Debug)]
pub(in crate::simulate) struct PolarizationField<'a> {
    form: Form<'a>,
    rotation_rad: f64,
}

#[derive(Debug)]
enum Form<'a> {
    Parallel { vectors_pm: Vec<[f64; 2]>, normal: [f64; 2], walls: &'a DomainWalls, width_nm: f64 },
    Mosaic(Mosaic),
    Whole(&'a Polarization),
}

impl<'a> PolarizationField<'a> {
    pub fn new(polarization: &'a Polarization, host: Host<'_>) -> Self {
        let form = match polarization {
            Polarization::Domains { vectors_pm, normal_rad, walls, width_nm } => Form::Parallel {
                vectors_pm: vectors_pm.clone(),
                normal: [normal_rad.cos(), -normal_rad.sin()],
                walls,
                width_nm: *width_nm,
            },
            Polarization::Stripes { wall, first, walls, width_nm } => {
                match wall.pair(host.variants_pm, *first) {
                    Some(pair) => Form::Parallel {
                        vectors_pm: pair.vectors_pm.to_vec(),
                        normal: turned(pair.normal, host.rotation_rad),
                        walls,
                        width_nm: *width_nm,
                    },
                    // Refused by `validate`.
                    None => Form::Whole(&Polarization::Uniform { p_pm: [0.0, 0.0] }),
                }
            }
            Polarization::Mosaic { domain_nm, width_nm, weights } => Form::Mosaic(Mosaic {
                vectors_pm: host.variants_pm.to_vec(),
                cumulative: Mosaic::cumulative(weights, host.variants_pm.len()),
                domain_nm: *domain_nm,
                width_nm: *width_nm,
                seed: host.seed,
            }),
            other => Form::Whole(other),
        };
        Self { form, rotation_rad: host.rotation_rad }
    }

    /// P in pm at `position_nm` = `[y, x]`, as `[x, y]` in the lattice frame.
    pub fn at(&self, position_nm: [f64; 2]) -> [f64; 2] {
        match &self.form {
            Form::Parallel { vectors_pm, normal, walls, width_nm } => {
                let [y, x] = position_nm;
                let s_nm = x * normal[0] + y * normal[1];
                let (domain, nearest_nm) = walls.domain_and_nearest(s_nm);
                let vector = |k: i64| vectors_pm[k.rem_euclid(vectors_pm.len() as i64) as usize];
                let Some((wall_nm, before)) = nearest_nm else { return vector(domain) };
                let [from, to] = [vector(before), vector(before + 1)];
                let after = 0.5 * (1.0 + (2.0 * (s_nm - wall_nm) / width_nm).tanh());
                [from[0] + (to[0] - from[0]) * after, from[1] + (to[1] - from[1]) * after]
            }
            Form::Mosaic(mosaic) => mosaic.at(position_nm),
            Form::Whole(polarization) => polarization.at(position_nm, self.rotation_rad),
        }
    }
}
