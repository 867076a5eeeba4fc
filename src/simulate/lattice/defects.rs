//! Defects of single columns, interstitials and contamination: which of them are near.

use super::{HOST, Lattice, Site, SiteKind, random_patches, xy, yx_nm};
use crate::simulate::hash::{mixed, unit};
use crate::simulate::truth::DefectKind;

/// A column beside the sites.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulate) struct Interstitial {
    /// `[x, y]` in pm.
    pub position: [f64; 2],
    pub intensity: f64,
    pub sigma_pm: f64,
}

/// A round, smooth blob of background.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulate) struct Contamination {
    /// `[x, y]` in nm.
    pub center: [f64; 2],
    /// Standard deviation, nm.
    pub radius: f64,
    /// Fraction of the A columns' peak height.
    pub height: f64,
}

/// Contamination is followed out to so many standard deviations.
pub(super) const CONTAMINATION_REACH: f64 = 4.0;

impl Lattice<'_> {
    /// Looks up the planted defects near the focus.
    pub(super) fn plant(&mut self) {
        let specimen = self.specimen;
        for defect in &specimen.defects {
            let at = xy(defect.at_nm);
            let reach = CONTAMINATION_REACH * defect.radius_nm;
            if !self.focus.touches(at, reach + self.host().mean_edge() * 1e-3) {
                continue;
            }
            let height = defect.intensity_ratio;
            match defect.kind {
                DefectKind::Contamination => {
                    self.contaminations.push(Contamination { center: at, radius: defect.radius_nm, height });
                }
                DefectKind::Interstitial => {
                    self.interstitials.push(self.interstitial(at.map(|c| c * 1e3), height));
                }
                kind => {
                    if let Some(site) = self.site_of(kind, at) {
                        self.planted.insert(site, (kind, height));
                    }
                }
            }
        }
        let random = &specimen.random_defects;
        let blobs = random_patches(specimen, random.contamination_per_nm2, 2, self.focus);
        let height = random.contamination_intensity_ratio;
        let blobs = blobs.into_iter().map(|(center, radius)| Contamination { center, radius, height });
        self.contaminations.extend(blobs);
    }

    /// The site at which a single-column defect of this kind that is planted at `[x, y]` in nm stands.
    fn site_of(&self, kind: DefectKind, at: [f64; 2]) -> Option<(usize, Site)> {
        let sites: &[SiteKind] = match kind {
            DefectKind::VacancyA | DefectKind::SubstitutionA | DefectKind::AntisiteA => &[SiteKind::A],
            DefectKind::VacancyB | DefectKind::SubstitutionB | DefectKind::AntisiteB => &[SiteKind::B],
            DefectKind::VacancyO => &[SiteKind::OnA, SiteKind::OnB],
            _ => return None,
        };
        let owner = self.territory.owner(at)?;
        let grid = self.grids().get(owner.grid)?;
        let at = at.map(|c| c * 1e3);
        let undisplaced = if grid.displaced { self.displacement.inverse(at) } else { at };
        let distance = |site: &Site| {
            grid.position(*site)
                .map_or(f64::INFINITY, |[x, y]| (x - undisplaced[0]).hypot(y - undisplaced[1]))
        };
        let nearest = sites.iter().filter_map(|kind| grid.nearest(undisplaced, *kind));
        let nearest = nearest.min_by(|one, other| distance(one).total_cmp(&distance(other)))?;
        Some((owner.grid, nearest))
    }

    fn interstitial(&self, position: [f64; 2], intensity: f64) -> Interstitial {
        let intensity = intensity * self.thickness_at(yx_nm(position));
        Interstitial { position, intensity, sigma_pm: self.specimen.columns.b.sigma_pm }
    }

    /// The defect, if any, that [`RandomDefects`](crate::simulate::RandomDefects) put on a site whose random number is `fraction`.
    pub(super) fn scattered(&self, kind: SiteKind, fraction: f64) -> Option<(DefectKind, f64)> {
        let random = &self.specimen.random_defects;
        let (vacant, substituted, exchanged) =
            (random.vacancy_intensity_ratio, random.substitution_intensity_ratio, random.antisite_fraction);
        let kinds = match kind {
            SiteKind::A => [
                (random.vacancy_a, DefectKind::VacancyA, vacant),
                (random.substitution_a, DefectKind::SubstitutionA, substituted),
                (random.antisite_a, DefectKind::AntisiteA, exchanged),
            ],
            SiteKind::B => [
                (random.vacancy_b, DefectKind::VacancyB, vacant),
                (random.substitution_b, DefectKind::SubstitutionB, substituted),
                (random.antisite_b, DefectKind::AntisiteB, exchanged),
            ],
            SiteKind::OnA | SiteKind::OnB => {
                return (fraction < random.vacancy_o).then_some((DefectKind::VacancyO, vacant));
            }
        };
        let mut sum = 0.0;
        kinds.into_iter().find_map(|(probability, kind, ratio)| {
            sum += probability;
            (fraction < sum).then_some((kind, ratio))
        })
    }

    /// The interstitial that [`RandomDefects`](crate::simulate::RandomDefects) put into the cell of a host's A site.
    pub fn random_interstitial(&self, site: Site) -> Option<Interstitial> {
        let random = &self.specimen.random_defects;
        if random.interstitial == 0.0 {
            return None;
        }
        let draw = |n: u64| unit(mixed([self.specimen.seed, site.i as u64, site.j as u64, 0x696e_7465 + n]));
        if draw(0) >= random.interstitial {
            return None;
        }
        // In one of the four gaps between an A column, the B column and two O columns.
        let gap = |n: u64| if draw(n) < 0.5 { 0.25 } else { 0.75 };
        let (u, v) = (site.i as f64 + gap(1), site.j as f64 + gap(2));
        let [x, y] = self.host().along_edges([u, v]);
        let undisplaced = [self.host().origin[0] + x, self.host().origin[1] + y];
        let moved = self.displaced(self.host(), undisplaced);
        let position = [undisplaced[0] + moved[0], undisplaced[1] + moved[1]];
        let owner = self.territory.owner(position.map(|c| c * 1e-3))?;
        let in_host = owner.grid == HOST && !owner.amorphous;
        in_host.then(|| self.interstitial(position, random.interstitial_intensity_ratio))
    }
}

/// What an exchanged fraction of its atoms makes of a column's peak height, as a factor.
pub(super) fn exchanged(own: f64, other: f64, fraction: f64) -> f64 {
    if own > 0.0 { 1.0 + fraction * (other / own - 1.0) } else { 1.0 }
}
