//! Connected regions of a grid.

use ndarray::Array2;

/// 8-connected regions of set flags.
pub(super) fn regions(flags: &Array2<u8>) -> Vec<Vec<[usize; 2]>> {
    let (rows, cols) = flags.dim();
    let mut seen = Array2::from_elem((rows, cols), false);
    let mut found = Vec::new();
    for start in flags.indexed_iter().filter(|(_, flag)| **flag != 0).map(|((i, j), _)| [i, j]) {
        if seen[start] {
            continue;
        }
        seen[start] = true;
        let (mut region, mut open) = (Vec::new(), vec![start]);
        while let Some([i, j]) = open.pop() {
            region.push([i, j]);
            for row in i.saturating_sub(1)..(i + 2).min(rows) {
                for col in j.saturating_sub(1)..(j + 2).min(cols) {
                    if flags[[row, col]] != 0 && !seen[[row, col]] {
                        seen[[row, col]] = true;
                        open.push([row, col]);
                    }
                }
            }
        }
        found.push(region);
    }
    found
}

/// The number of the region that each place belongs to.
pub(super) fn labels(regions: &[Vec<[usize; 2]>], shape: (usize, usize)) -> Array2<Option<usize>> {
    let mut labels = Array2::from_elem(shape, None);
    for (number, region) in regions.iter().enumerate() {
        for at in region {
            labels[*at] = Some(number);
        }
    }
    labels
}

/// `flags` and everything within `reach` rows and columns of one.
pub(super) fn spread(flags: &Array2<u8>, reach: usize) -> Array2<u8> {
    let (rows, cols) = flags.dim();
    let mut wider = Array2::zeros((rows, cols));
    for ((i, j), _) in flags.indexed_iter().filter(|(_, flag)| **flag != 0) {
        for row in i.saturating_sub(reach)..(i + reach + 1).min(rows) {
            for col in j.saturating_sub(reach)..(j + reach + 1).min(cols) {
                wider[[row, col]] = 1;
            }
        }
    }
    wider
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Array2<u8> {
        Array2::from_shape_vec((3, 5), vec![1, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0]).unwrap()
    }

    #[test]
    fn regions_are_eight_connected_and_numbered() {
        let found = regions(&flags());
        let mut sizes: Vec<usize> = found.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [2, 2]);
        let labels = labels(&found, (3, 5));
        assert_eq!(labels[[0, 0]], labels[[1, 1]]);
        assert_ne!(labels[[0, 0]], labels[[1, 4]]);
        assert_eq!((labels[[0, 0]].is_some(), labels[[2, 2]]), (true, None));
    }

    #[test]
    fn a_gap_that_the_spread_bridges_joins_two_regions() {
        let wider = spread(&flags(), 1);
        assert_eq!(wider.row(2).to_vec(), [1, 1, 1, 1, 1]);
        assert_eq!(wider[[0, 2]], 1, "next to the one at (1, 1)");
        assert_eq!(regions(&wider).len(), 1);
        assert_eq!(spread(&flags(), 0), flags());
    }
}
