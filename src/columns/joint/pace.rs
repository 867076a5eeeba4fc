//! How much time a fit has, and what it does less exactly where that is little.

/// Of so many rows and columns one is read for what the columns share, as long as a column is several times as wide.
const EVERY_SIGMA: f64 = 0.7;
/// Pixels between which tails are drawn as straight lines, in a standard deviation.
const NODES_IN_SIGMA: f64 = 2.5;
/// Squares in a standard deviation of what smooths them.
const SQUARES_IN_SIGMA: f64 = 3.0;
/// How far from a column's centre it is found, standard deviation of a coordinate, in cell edges: 8 pm. It keeps faint columns from
/// being drawn away, and weighs nothing beside the pixels of others.
const FOUND_CELLS: f64 = 0.02;
/// What is known of B's precisions before a frame is seen: they are A's, within this part of them; the probe makes most of both.
const LIKE_A: f64 = 0.5;

/// How much time a fit has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As much as it takes: everything pixel by pixel, and from the pixels alone.
    Thorough,
    /// That of a live frame: what is smooth on coarse nodes, and few rounds held together by what is known beforehand.
    Live,
}

impl Pace {
    /// Of so many rows and columns one is read for what all columns share: neighbouring ones say nearly the same. `sigma_px`: width
    /// of a column.
    pub(super) fn every(self, sigma_px: f64) -> usize {
        self.coarse(EVERY_SIGMA * sigma_px)
    }

    /// From node to node of a tail of this width, px: tails are so wide that straight lines between do, to 2 % of them.
    pub(super) fn nodes_px(self, sigma_px: f64) -> usize {
        self.coarse(sigma_px / NODES_IN_SIGMA)
    }

    /// Side of the squares that a Gaussian of this width smooths, px.
    pub(super) fn squares_px(self, sigma_px: f64) -> usize {
        self.coarse(sigma_px / SQUARES_IN_SIGMA)
    }

    /// How well the places are known where columns were found, standard deviation of each coordinate, px; infinite for not at all.
    pub(super) fn found_within_px(self, cell_px: f64) -> f64 {
        match self {
            Self::Thorough => f64::INFINITY,
            Self::Live => FOUND_CELLS * cell_px,
        }
    }

    /// Within which part of A's precisions those of B are known to be; `None` where they are not.
    pub(super) fn like_a(self) -> Option<f64> {
        match self {
            Self::Thorough => None,
            Self::Live => Some(LIKE_A),
        }
    }

    /// Whole pixels of a length that a live fit can afford to pass over.
    fn coarse(self, px: f64) -> usize {
        match self {
            Self::Thorough => 1,
            Self::Live => px.max(1.0) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thorough_fit_passes_over_nothing() {
        let (thorough, live) = (Pace::Thorough, Pace::Live);
        let steps = |pace: Pace| [pace.every(5.0), pace.nodes_px(11.0), pace.squares_px(20.0)];
        assert_eq!((steps(thorough), steps(live)), ([1; 3], [3, 4, 6]));
        // Columns of a few pixels are read pixel by pixel at any pace.
        assert_eq!(live.every(2.0), 1);
        assert!(thorough.found_within_px(26.0).is_infinite() && thorough.like_a().is_none());
    }
}
