//! Domains side by side, and which of the crystal's variants meet at a wall of which kind.

use crate::config::InvalidSetting;
use crate::simulate::check::Check;
use serde::{Deserialize, Serialize};

/// Positions of the domain walls along their normal, nm from the specimen's origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DomainWalls {
    /// A wall every `spacing_nm`, one of them at `offset_nm`.
    Periodic { spacing_nm: f64, offset_nm: f64 },
    /// Walls at these ascending positions and nowhere else.
    AtNm(Vec<f64>),
}

/// By how much P turns across a wall. The kind says which variant meets which, and how the wall lies: along the difference of the
/// two P, so that it carries no bound charge.
///
/// Seen along [100], P of a rhombohedral crystal lies along a face diagonal. At a 71° wall the component along a (or b) changes
/// sign, at a 109° wall that one and the hidden one along the beam: both look like a quarter turn. The 109° wall, on a {100} plane,
/// is seen edge on; the 71° wall, on a {110} plane, slants through the specimen, so give it a width to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WallKind {
    /// Rhombohedral crystals.
    #[serde(rename = "71")]
    Deg71,
    /// Tetragonal crystals.
    #[serde(rename = "90")]
    Deg90,
    /// Rhombohedral crystals.
    #[serde(rename = "109")]
    Deg109,
    #[serde(rename = "180")]
    Deg180,
}

/// Two domains that meet at a wall.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    pub vectors_pm: [[f64; 2]; 2],
    /// Of the wall, in the lattice frame `[x, y]`, from the first domain to the second.
    pub normal: [f64; 2],
}

impl WallKind {
    /// The angle of P, seen in three dimensions, rad.
    pub fn angle_rad(self) -> f64 {
        match self {
            Self::Deg71 => (1.0 / 3.0f64).acos(),
            Self::Deg90 => std::f64::consts::FRAC_PI_2,
            Self::Deg109 => (-1.0 / 3.0f64).acos(),
            Self::Deg180 => std::f64::consts::PI,
        }
    }

    /// Variant number `first` and the first of the others that a wall of this kind can part it from.
    pub(super) fn pair(self, variants_pm: &[[f64; 2]], first: usize) -> Option<Pair> {
        let from = *variants_pm.get(first)?;
        let length = from[0].hypot(from[1]);
        let diagonal = (from[0].abs() - from[1].abs()).abs() < 0.01 * length;
        let fits = match self {
            Self::Deg71 | Self::Deg109 => diagonal,
            Self::Deg90 => !diagonal,
            Self::Deg180 => true,
        };
        let cosine = if self == Self::Deg180 { -1.0 } else { 0.0 };
        let to = variants_pm.iter().copied().find(|to| {
            let dot = from[0] * to[0] + from[1] * to[1];
            (dot / (length * to[0].hypot(to[1])) - cosine).abs() < 0.01
        })?;
        let along = [to[0] - from[0], to[1] - from[1]];
        let norm = along[0].hypot(along[1]);
        // P points from the first domain to the second: head to tail.
        let normal = [-along[1] / norm, along[0] / norm];
        let out = if normal[0] * from[0] + normal[1] * from[1] < -1e-9 * length { -1.0 } else { 1.0 };
        fits.then(|| Pair { vectors_pm: [from, to], normal: normal.map(|c| out * c) })
    }
}

impl DomainWalls {
    /// The number of the domain at `s_nm`, and the nearest wall with the number of the domain before it.
    pub(super) fn domain_and_nearest(&self, s_nm: f64) -> (i64, Option<(f64, i64)>) {
        match self {
            Self::Periodic { spacing_nm, offset_nm } => {
                let wall = ((s_nm - offset_nm) / spacing_nm).round();
                let position_nm = offset_nm + wall * spacing_nm;
                let before = wall as i64 - 1;
                (if s_nm < position_nm { before } else { before + 1 }, Some((position_nm, before)))
            }
            Self::AtNm(positions) => {
                let domain = positions.partition_point(|&p| p <= s_nm);
                let nearest = [domain.checked_sub(1), Some(domain)]
                    .into_iter()
                    .flatten()
                    .filter_map(|k| Some((*positions.get(k)?, k as i64)))
                    .min_by(|a, b| (a.0 - s_nm).abs().total_cmp(&(b.0 - s_nm).abs()));
                (domain as i64, nearest)
            }
        }
    }

    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        match self {
            Self::Periodic { spacing_nm, offset_nm } => {
                let good = *spacing_nm > 0.0 && spacing_nm.is_finite() && offset_nm.is_finite();
                let value = [*spacing_nm, *offset_nm];
                check.that(good, "walls.periodic", &value, "a spacing above 0 and a finite offset")
            }
            Self::AtNm(positions) => {
                let ascending = positions.windows(2).all(|w| w[0] < w[1]);
                let good = ascending && positions.iter().all(|p| p.is_finite());
                check.that(good, "walls.at_nm", positions, "finite positions in ascending order")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variant in three dimensions, with the component along the beam that the kind of wall leaves or turns.
    fn angle_of(kind: WallKind, pair: &Pair) -> f64 {
        let [from, to] = pair.vectors_pm;
        let (hidden, after) = match kind {
            WallKind::Deg71 => (from[0].abs(), from[0].abs()),
            WallKind::Deg109 | WallKind::Deg180 => (from[0].abs(), -from[0].abs()),
            WallKind::Deg90 => (0.0, 0.0),
        };
        let [hidden, after] =
            if pair.vectors_pm[0][0] * pair.vectors_pm[0][1] == 0.0 { [0.0, 0.0] } else { [hidden, after] };
        let dot = from[0] * to[0] + from[1] * to[1] + hidden * after;
        let length = |v: [f64; 2], z: f64| (v[0] * v[0] + v[1] * v[1] + z * z).sqrt();
        (dot / (length(from, hidden) * length(to, after))).acos()
    }

    #[test]
    fn every_kind_of_wall_turns_p_by_its_angle_and_carries_no_charge() {
        let rhombohedral = [[20.0, 20.0], [-20.0, 20.0], [-20.0, -20.0], [20.0, -20.0]];
        let tetragonal = [[15.0, 0.0], [-15.0, 0.0], [0.0, 15.0], [0.0, -15.0]];
        let cases = [
            (WallKind::Deg71, &rhombohedral),
            (WallKind::Deg109, &rhombohedral),
            (WallKind::Deg180, &rhombohedral),
            (WallKind::Deg90, &tetragonal),
            (WallKind::Deg180, &tetragonal),
        ];
        for (kind, variants) in cases {
            for first in 0..4 {
                let pair = kind.pair(variants, first).unwrap();
                assert_eq!(pair.vectors_pm[0], variants[first]);
                assert!((angle_of(kind, &pair) - kind.angle_rad()).abs() < 1e-6, "{kind:?} {pair:?}");
                let [from, to] = pair.vectors_pm;
                let charge = (to[0] - from[0]) * pair.normal[0] + (to[1] - from[1]) * pair.normal[1];
                assert!(charge.abs() < 1e-12, "{kind:?} {pair:?}");
            }
        }
        assert!((WallKind::Deg71.angle_rad().to_degrees() - 70.53).abs() < 0.01);
        // The visible component along a turns at a wall along a, which a face of the cell is.
        assert_eq!(WallKind::Deg109.pair(&rhombohedral, 0).unwrap().normal, [0.0, 1.0]);
        assert_eq!(WallKind::Deg90.pair(&rhombohedral, 0), None);
        assert_eq!(WallKind::Deg71.pair(&tetragonal, 0), None);
        assert_eq!(WallKind::Deg180.pair(&[], 0), None);
    }
}
