//! Which columns a frame shows, and where.

use super::lattice::{Grid, HOST, Interstitial, Lattice, Site, SiteColumn, SiteKind};
use super::scan_field::ScanField;
use super::truth::ColumnClass;
use super::view::{View, add, apply};
use ndarray::Array2;

/// The columns in and around the frame, by the lattice that they belong to.
pub(super) struct Placed {
    /// In the order of [`Lattice::grids`].
    pub grids: Vec<PlacedGrid>,
    pub interstitials: Vec<PlacedColumn>,
}

/// The columns of one lattice, and how to find one by its cell.
pub(super) struct PlacedGrid {
    first_row: i64,
    rows: Vec<CellRow>,
    /// By cell, then by kind of site; `None` where the frame cannot see it or nothing stands there.
    columns: Vec<Option<PlacedColumn>>,
}

/// The cells of a row that the frame may see.
#[derive(Debug, Clone, Copy)]
pub(super) struct CellRow {
    first: i64,
    cells: usize,
    /// Of its first cell among all.
    offset: usize,
}

/// A column with its positions in the image, `[x, y]` in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlacedColumn {
    pub class: ColumnClass,
    pub column: SiteColumn,
    /// Without mistilt and scatter.
    pub true_px: [f64; 2],
    /// As it appears.
    pub seen_px: [f64; 2],
    /// What mistilt adds, in the image, pm.
    pub mistilt_pm: [f64; 2],
    /// The tilt itself, in the specimen frame.
    pub tilt_mrad: [f64; 2],
    /// See [`View::mark_saturated`].
    pub saturated: bool,
}

/// Points a side of the mesh over the frame from which the cells are found that it may see.
const MESH: usize = 16;
/// Where a Gaussian is half as high as in its middle, standard deviations: √(2 ln 2).
const HALF_HEIGHT_SIGMAS: f64 = 1.177_410_022_515_474_7;

impl SiteKind {
    const fn class(self) -> ColumnClass {
        match self {
            Self::A => ColumnClass::A,
            Self::B => ColumnClass::B,
            Self::OnA | Self::OnB => ColumnClass::Oxygen,
        }
    }
}

impl View<'_> {
    pub(super) fn place_columns(&self) -> Placed {
        let margin = self.margin_px();
        let mesh = self.mesh(margin);
        let mut placed = Placed { grids: Vec::new(), interstitials: Vec::new() };
        for (number, grid) in self.lattice.grids().iter().enumerate() {
            let mut cells = PlacedGrid::over(&self.lattice, number, &mesh);
            for (j, row) in (cells.first_row..).zip(&cells.rows) {
                for i in row.first..row.first + row.cells as i64 {
                    let sites = SiteKind::ALL.map(|kind| Site { i, j, kind });
                    cells.columns.extend(sites.map(|site| self.place(number, grid, site, margin)));
                    if number == HOST {
                        let [site, ..] = sites;
                        let interstitial = self.lattice.random_interstitial(site);
                        placed.interstitials.extend(interstitial.map(|column| self.beside(&column)));
                    }
                }
            }
            placed.grids.push(cells);
        }
        placed.interstitials.extend(self.lattice.interstitials.iter().map(|column| self.beside(column)));
        placed
    }

    /// Specimen positions `[x, y]` in pm of a mesh over the frame and its margin, and the distance from one to the next.
    fn mesh(&self, margin: f64) -> Mesh {
        let [rows, cols] = self.microscope.shape.map(|n| n as f64);
        let at = |k: usize, len: f64| -margin + (len + 2.0 * margin) * k as f64 / MESH as f64;
        let points = (0..=MESH)
            .flat_map(|r| (0..=MESH).map(move |c| (r, c)))
            .map(|(r, c)| self.specimen_pm([at(c, cols), at(r, rows)]))
            .collect();
        let step = (rows.max(cols) + 2.0 * margin) / MESH as f64;
        let [high_pm, wide_pm] = self.microscope.pixel_sizes_pm();
        Mesh { points, step_pm: 1.5 * step * high_pm.max(wide_pm) }
    }

    fn place(&self, number: usize, grid: &Grid, site: Site, margin: f64) -> Option<PlacedColumn> {
        let undisplaced = grid.position(site)?;
        let moved = self.lattice.displaced(grid, undisplaced);
        let position_pm = add(undisplaced, moved);
        if !self.is_near(position_pm, margin) {
            return None;
        }
        let column = self.lattice.column(number, site, moved)?;
        Some(self.placed(site.kind.class(), undisplaced, column))
    }

    fn is_near(&self, position_pm: [f64; 2], margin: f64) -> bool {
        let [rows, cols] = self.microscope.shape.map(|n| n as f64);
        let [x, y] = self.image_px(position_pm);
        (-margin..=cols + margin).contains(&x) && (-margin..=rows + margin).contains(&y)
    }

    /// A column beside the sites; shifted by mistilt as the B columns are.
    fn beside(&self, interstitial: &Interstitial) -> PlacedColumn {
        let column = SiteColumn {
            shift: [0.0, 0.0],
            scatter: [0.0, 0.0],
            intensity: interstitial.intensity,
            sigma_pm: interstitial.sigma_pm,
            defect: Some(super::DefectKind::Interstitial),
            composition: 0.0,
            region: None,
        };
        self.placed(ColumnClass::Interstitial, interstitial.position, column)
    }

    fn placed(&self, class: ColumnClass, site_pm: [f64; 2], column: SiteColumn) -> PlacedColumn {
        let true_pm = add(site_pm, column.shift);
        let mistilt = self.mistilt(site_pm);
        let share = if class == ColumnClass::A { 1.0 } else { 0.5 };
        let tilt = mistilt.a_shift_pm.map(|t| share * t);
        PlacedColumn {
            class,
            column,
            true_px: self.image_px(true_pm),
            seen_px: self.image_px(add(add(true_pm, column.scatter), tilt)),
            mistilt_pm: apply(&self.to_image, tilt),
            tilt_mrad: mistilt.mrad,
            saturated: false,
        }
    }

    /// Marks the columns that the detector could not show: one of the `saturated` pixels `[row, col]` is nearer to the middle of the
    /// column, as the scan shows it, than where it is half as high.
    pub(super) fn mark_saturated(&self, placed: &mut Placed, saturated: &Array2<bool>, field: &ScanField) {
        if !saturated.iter().any(|&saturated| saturated) {
            return;
        }
        let (rows, cols) = saturated.dim();
        for column in placed.columns_mut() {
            let sigma_px = self.widest_px(column);
            let radius_px = HALF_HEIGHT_SIGMAS * sigma_px;
            let [x, y] = column.seen_px;
            let [row, col] = field.imaged_px([y, x], sigma_px);
            let near = |at: f64, size: usize| {
                let end = (at + radius_px + 1.0).clamp(0.0, size as f64) as usize;
                (at - radius_px).max(0.0) as usize..end
            };
            column.saturated = near(row, rows)
                .flat_map(|i| near(col, cols).map(move |j| (i, j)))
                .any(|(i, j)| (i as f64 - row).hypot(j as f64 - col) <= radius_px && saturated[[i, j]]);
        }
    }
}

/// See [`View::mesh`].
struct Mesh {
    points: Vec<[f64; 2]>,
    step_pm: f64,
}

impl Placed {
    /// Every column that is to be drawn.
    pub fn columns(&self) -> impl Iterator<Item = &PlacedColumn> {
        self.grids.iter().flat_map(|grid| grid.columns.iter().flatten()).chain(&self.interstitials)
    }

    fn columns_mut(&mut self) -> impl Iterator<Item = &mut PlacedColumn> {
        let grids = self.grids.iter_mut().flat_map(|grid| grid.columns.iter_mut().flatten());
        grids.chain(&mut self.interstitials)
    }
}

impl PlacedGrid {
    /// Room for the cells of a lattice that the mesh passes over: the sites nearer to one of its points than two steps.
    fn over(lattice: &Lattice<'_>, number: usize, mesh: &Mesh) -> Self {
        let nothing = Self { first_row: 0, rows: Vec::new(), columns: Vec::new() };
        let Some(grid) = lattice.grids().get(number) else { return nothing };
        let cells: Vec<[f64; 2]> = mesh
            .points
            .iter()
            .filter(|point| lattice.may_be_near(number, **point, mesh.step_pm))
            .map(|point| grid.cell_coordinates(lattice.undisplaced(grid, *point)))
            .collect();
        let shortest = grid.edges.map(|[x, y]| x.hypot(y)).into_iter().fold(f64::INFINITY, f64::min);
        let around = (mesh.step_pm / shortest).ceil() as i64 + 1;
        let rows = cells.iter().map(|cell| cell[1].floor() as i64);
        let (Some(low), Some(high)) = (rows.clone().min(), rows.max()) else { return nothing };
        let first_row = low - around;
        let mut bounds = vec![(i64::MAX, i64::MIN); (high + around - first_row + 1) as usize];
        for [u, v] in cells {
            let (i, row) = (u.floor() as i64, (v.floor() as i64 - first_row) as usize);
            for (low, high) in bounds.iter_mut().skip(row - around as usize).take(2 * around as usize + 1) {
                (*low, *high) = ((*low).min(i - around), (*high).max(i + around));
            }
        }
        let mut offset = 0;
        let rows: Vec<CellRow> = bounds
            .into_iter()
            .map(|(low, high)| {
                // Rows between two parts of the frame that show the lattice.
                let cells = if low <= high { (high - low + 1) as usize } else { 0 };
                let row = CellRow { first: low, cells, offset };
                offset += cells;
                row
            })
            .collect();
        Self { first_row, rows, columns: Vec::with_capacity(offset * SiteKind::ALL.len()) }
    }

    /// The indices `(i, j)` of its cells.
    pub fn cells(&self) -> impl Iterator<Item = (i64, i64)> {
        let rows = (self.first_row..).zip(&self.rows);
        rows.flat_map(|(j, row)| (row.first..row.first + row.cells as i64).map(move |i| (i, j)))
    }

    /// The column of this kind in the cell `(i, j)`.
    pub fn get(&self, site: Site) -> Option<&PlacedColumn> {
        let row = self.rows.get(usize::try_from(site.j - self.first_row).ok()?)?;
        let cell = usize::try_from(site.i - row.first).ok().filter(|&cell| cell < row.cells)?;
        self.columns.get((row.offset + cell) * SiteKind::ALL.len() + site.kind as usize)?.as_ref()
    }
}
