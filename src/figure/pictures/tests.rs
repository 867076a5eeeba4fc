use super::*;
use ferrostem_proto::*;
use rand::{RngExt, SeedableRng};
use tiny_skia::PremultipliedColorU8;

const SIDE: usize = 416;
const CELL_PX: f64 = 26.0;
/// Windows 8 px apart whose centres lie 40 px inside the frame.
const GRID: GridSpec = GridSpec { row0: 40.0, col0: 40.0, step_row: 8.0, step_col: 8.0, rows: 42, cols: 42 };

/// P in pm of a vortex around the frame's centre, counter-clockwise as displayed.
fn vortex(row: f64, col: f64) -> (f64, f64) {
    let (dx, dy) = (col - SIDE as f64 / 2.0, row - SIDE as f64 / 2.0);
    let r = dx.hypot(dy).max(1e-9);
    let length = 45.0 * (r / 60.0).tanh();
    (length * dy / r, -length * dx / r)
}

/// A perovskite along [100] with 15 pm pixels whose B columns are displaced by [`vortex`].
fn lattice() -> Array2<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut frame = Array2::from_elem((SIDE, SIDE), 0.12f32);
    let cells = (SIDE as f64 / CELL_PX) as i32 + 1;
    for i in -1..=cells {
        for j in -1..=cells {
            let (row, col) = (f64::from(i) * CELL_PX + 4.0, f64::from(j) * CELL_PX + 4.0);
            let (b_row, b_col) = (row + CELL_PX / 2.0, col + CELL_PX / 2.0);
            let (p_x, p_y) = vortex(b_row, b_col);
            add_column(&mut frame, (row, col), 1.0);
            add_column(&mut frame, (b_row + p_y / 15.0, b_col + p_x / 15.0), 0.45);
        }
    }
    let noisy = frame.indexed_iter().map(|((_, col), v)| {
        let noise = 0.12 * (rng.random::<f32>() - 0.5);
        if col < 400 { v + noise } else { f32::NAN }
    });
    Array2::from_shape_vec(frame.dim(), noisy.collect()).unwrap()
}

fn add_column(frame: &mut Array2<f32>, (row, col): (f64, f64), height: f32) {
    for r in (row - 15.0).max(0.0) as usize..((row + 15.0).max(0.0) as usize).min(SIDE) {
        for c in (col - 15.0).max(0.0) as usize..((col + 15.0).max(0.0) as usize).min(SIDE) {
            let d2 = (r as f64 - row).powi(2) + (c as f64 - col).powi(2);
            frame[[r, c]] += height * (-d2 / (2.0 * 4.2f64.powi(2))).exp() as f32;
        }
    }
}

fn map<T>(grid: &GridSpec, value: impl Fn(usize, usize) -> T) -> Grid<T> {
    let (rows, cols) = (grid.rows as usize, grid.cols as usize);
    let values = (0..rows * cols).map(|i| value(i / cols, i % cols)).collect();
    Grid::new(rows, cols, values).unwrap()
}

/// The same P everywhere, nothing flagged.
fn uniform(p_x: f32, p_y: f32) -> ResultMessage {
    ResultMessage {
        acquisition: "BFO-17".into(),
        seq: 42,
        grid: GRID,
        p_x: map(&GRID, |_, _| p_x),
        p_y: map(&GRID, |_, _| p_y),
        ood: OodMaps { p_value: map(&GRID, |_, _| 0.6), flag: map(&GRID, |_, _| 0) },
        calibration: Calibration { pixel_size_pm: [15.0, 15.0], source: CalibrationSource::Frame },
        ..ResultMessage::default()
    }
}

fn candidate(id: u64, kind: CandidateKind, at: (f64, f64), reason: &str) -> Candidate {
    Candidate {
        id,
        kind,
        px: PixelPosition { row: at.0, col: at.1 },
        frac: FractionalPosition::default(),
        nm: StagePosition::default(),
        score: 12.5 - id as f64,
        p_value: 0.001,
        reason: reason.into(),
        first_seq: 40,
        seq: 42,
        valid_until_ns: 0,
        model: "dcnn".into(),
    }
}

/// A vortex with a defect, tiles of every state, columns and candidates.
fn scene() -> ResultMessage {
    let at = |i: usize, j: usize| vortex(40.0 + 8.0 * i as f64, 40.0 + 8.0 * j as f64);
    let distance = |i: usize, j: usize| (i as f32 - 12.0).hypot(j as f32 - 30.0);
    let measured = |i: usize, j: usize, v: f64| if j > 40 || i < 1 { f32::NAN } else { v as f32 };
    let tiles = GridSpec { row0: 88.0, col0: 88.0, step_row: 96.0, step_col: 96.0, rows: 3, cols: 3 };
    let centres: Vec<(f32, f32)> =
        (0..15 * 15).map(|i| (4.0 + 26.0 * (i / 15) as f32, 4.0 + 26.0 * (i % 15) as f32)).collect();
    let rows = centres.iter().map(|c| c.0).chain(centres.iter().map(|c| c.0 + 13.0)).collect();
    let cols = centres.iter().map(|c| c.1).chain(centres.iter().map(|c| c.1 + 13.0)).collect();
    ResultMessage {
        p_x: map(&GRID, |i, j| measured(i, j, at(i, j).0)),
        p_y: map(&GRID, |i, j| measured(i, j, at(i, j).1)),
        ood: OodMaps {
            p_value: map(&GRID, |i, j| {
                let level = 5.0 * (-(distance(i, j) / 5.0).powi(2)).exp();
                if j > 40 { f32::NAN } else { 0.7 * 10f32.powf(-level) }
            }),
            flag: map(&GRID, |i, j| u8::from(j <= 40 && distance(i, j) < 3.5)),
        },
        mistilt: MistiltMaps {
            tiles,
            offset_x: map(&tiles, |i, j| [2.0, -4.0, f32::NAN][j] * (1.0 + i as f32)),
            offset_y: map(&tiles, |i, j| [1.0, 3.0, f32::NAN][j] * (1.0 - i as f32)),
            p_value: map(&tiles, |i, j| [0.4, 0.00002, f32::NAN][j] / (1.0 + i as f32)),
            state: map(&tiles, |i, j| [[1, 2, 0], [1, 2, 3], [3, 2, 0]][i][j]),
            ..MistiltMaps::default()
        },
        columns: ColumnTable {
            row: rows,
            col: cols,
            class: [[1u8; 225], [0; 225]].concat(),
            confidence: (0..450).map(|i| 0.5 + 0.5 * (i % 15) as f32 / 15.0).collect(),
        },
        candidates: vec![
            candidate(
                3,
                CandidateKind::Ood,
                (136.0, 280.0),
                "features unlike the training set, p < 0.0001 over 36 windows",
            ),
            candidate(7, CandidateKind::DomainWall, (208.0, 208.0), "P turns by 170° within 3 nm"),
            candidate(8, CandidateKind::Mistilt, (184.0, 184.0), "offset 6 pm common to all domains"),
            candidate(12, CandidateKind::Column, (60.0, 405.0), "missing A column"),
        ],
        model: ModelIds {
            dcnn: Some(ModelId { name: "dcnn-bfo".into(), sha256: "00".into() }),
            fcnn: Some(ModelId { name: "fcnn-bfo".into(), sha256: "00".into() }),
        },
        ..uniform(0.0, 0.0)
    }
}

fn rgb(pixel: PremultipliedColorU8) -> [u8; 3] {
    [pixel.red(), pixel.green(), pixel.blue()]
}

/// Pixels of the panel, not of the legend, whose colour is not grey.
fn coloured_in_panel(picture: &Pixmap) -> Vec<[u8; 3]> {
    let width = picture.width() as usize;
    let panel = picture.pixels().chunks(width).skip(90).flat_map(|line| &line[14..900]);
    panel.map(|p| rgb(*p)).filter(|[r, g, b]| r.abs_diff(*g) > 60 || g.abs_diff(*b) > 60).collect()
}

fn blank() -> Array2<f32> {
    Array2::from_elem((SIDE, SIDE), 1.0)
}

#[test]
fn the_pictures_of_a_scene_are_written() {
    let kept = std::env::var_os("FERROSTEM_FIGURES").map(PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let dir = kept.unwrap_or_else(|| temporary.path().join("new/folder"));
    let paths = write_all(&dir, "../BFO 17", &lattice(), &scene()).unwrap();
    let names: Vec<_> = paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names[0], ".._BFO_17_polarization.png");
    assert_eq!(names.len(), 6);
    for path in &paths {
        assert_eq!(path.parent(), Some(dir.as_path()));
        let picture = Pixmap::decode_png(&std::fs::read(path).unwrap()).unwrap();
        assert!((900..=2000).contains(&picture.width()), "{path:?}: {}", picture.width());
    }
}

#[test]
fn pictures_of_any_frame_are_900_to_2000_px_wide() {
    let result = ResultMessage::default();
    let settings = FigureSettings::default();
    for shape in [(16, 16), (64, 700), (700, 40), (3000, 3000)] {
        let frame = Array2::from_elem(shape, 1.0);
        for draw in [polarization_figure, mask_figure, candidates_figure, overview] {
            let picture = draw(&frame, &result, &settings).unwrap();
            assert!((900..=2000).contains(&picture.width()), "{shape:?}: {}", picture.width());
            assert!(picture.height() <= 2200, "{shape:?}: {}", picture.height());
        }
    }
}

#[test]
fn a_field_along_x_has_the_colour_of_0_degrees() {
    let settings = FigureSettings::default();
    let picture = polarization_map(&blank(), &uniform(50.0, 0.0), &settings).unwrap();
    let coloured = coloured_in_panel(&picture);
    assert!(coloured.len() > 400_000, "{}", coloured.len());
    assert!(coloured.iter().all(|c| *c == [255, 0, 0]));

    let picture = polarization_map(&blank(), &uniform(0.0, -50.0), &settings).unwrap();
    assert!(coloured_in_panel(&picture).iter().all(|c| *c == [128, 255, 0]), "up is 90°");
}

#[test]
fn arrows_carry_the_colour_of_their_direction() {
    let settings = FigureSettings::default();
    let picture = polarization_figure(&blank(), &uniform(50.0, 0.0), &settings).unwrap();
    let coloured = coloured_in_panel(&picture);
    let pure = coloured.iter().filter(|c| **c == [255, 0, 0]).count();
    assert!(pure > 10_000, "{pure} pixels of pure red");
    assert!(coloured.iter().all(|[r, g, b]| r > g && g.abs_diff(*b) < 2), "no other hue");
}

#[test]
fn nothing_is_drawn_where_p_is_nan() {
    let settings = FigureSettings::default();
    let arrows =
        |result| coloured_in_panel(&polarization_figure(&blank(), &result, &settings).unwrap()).len();
    assert_eq!(arrows(uniform(f32::NAN, f32::NAN)), 0);
    assert_eq!(arrows(uniform(f32::NAN, 10.0)), 0);
    assert_eq!(arrows(uniform(0.0, 0.0)), 0);
    assert_eq!(arrows(ResultMessage { grid: GRID, ..ResultMessage::default() }), 0, "no DCNN");
}

#[test]
fn flagged_arrows_are_fainter() {
    let settings = FigureSettings::default();
    let mut flagged = uniform(50.0, 0.0);
    flagged.ood.flag = map(&GRID, |_, _| 1);
    let strongest = |result| {
        let picture = polarization_figure(&blank(), &result, &settings).unwrap();
        coloured_in_panel(&picture).iter().map(|[r, g, _]| r - g).max().unwrap()
    };
    let (sure, faint) = (strongest(uniform(50.0, 0.0)), strongest(flagged));
    assert!(f32::from(faint) < 0.6 * f32::from(sure), "{faint} against {sure}");
}

#[test]
fn arrows_do_not_overlap_and_grow_with_p() {
    let settings = FigureSettings::default();
    let result = uniform(50.0, 0.0);
    let frame = blank();
    let scene = Scene::new(&frame, &result, &settings).unwrap();
    let view = scene.view(ONE_PANEL, 1.0).unwrap();
    let arrows = scene.arrows(&view);
    // 416 px on 900: windows 17.3 px apart, arrows wanted 27 px apart, so every second window.
    assert_eq!(arrows.stride, [2, 2]);
    assert!(arrows.full_length_px <= 2.0 * 8.0 * view.scale_x + 1e-3);
    let area =
        |p_x| coloured_in_panel(&polarization_figure(&frame, &uniform(p_x, 0.0), &settings).unwrap()).len();
    assert!(area(50.0) as f32 > 1.5 * area(25.0) as f32);
}

#[test]
fn tiles_have_the_colours_of_their_states() {
    let frame = Array2::from_elem((SIDE, SIDE), 1.0);
    let mut result = scene();
    result.mistilt.offset_x = map(&result.mistilt.tiles, |_, _| f32::NAN);
    result.mistilt.p_value = map(&result.mistilt.tiles, |_, _| f32::NAN);
    let settings = FigureSettings::default();
    let scene = Scene::new(&frame, &result, &settings).unwrap();
    let view = scene.view(TWO_PANELS, 1.0).unwrap();
    let picture = scene.mistilt_panel(&view).unwrap().picture;
    let mut seen = std::collections::BTreeMap::new();
    for i in 0..3 {
        for j in 0..3 {
            let area = view.cell(&result.mistilt.tiles, i, j);
            let x = (area.x + area.width / 2.0) as u32;
            let y = (area.y + area.height * 0.7) as u32;
            let state = *result.mistilt.state.get(i, j).unwrap();
            let (tile, _) = colour::tile_state(state);
            let expected = colour::mix([128; 3], tile, if state == 0 { 0.25 } else { 0.42 });
            let drawn = rgb(picture.pixel(x, y).unwrap());
            assert!((0..3).all(|k| drawn[k].abs_diff(expected[k]) <= 2), "{state}: {drawn:?}, {expected:?}");
            seen.insert(state, drawn);
        }
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_flagged_region_is_outlined_not_filled() {
    let mut result = uniform(0.0, 0.0);
    result.ood.flag = map(&GRID, |i, j| u8::from((10..14).contains(&i) && (10..14).contains(&j)));
    let frame = blank();
    let settings = FigureSettings::default();
    let scene = Scene::new(&frame, &result, &settings).unwrap();
    let view = scene.view(ONE_PANEL, 1.0).unwrap();
    let picture = scene.ood_panel(&view).unwrap().picture;
    let cyan = |x: f32, y: f32| {
        let [r, g, b] = rgb(picture.pixel(x as u32, y as u32).unwrap());
        g > 150 && b > 150 && r < 120
    };
    let first = view.cell(&GRID, 10, 10);
    let side = first.width * 4.0;
    assert!(cyan(first.x, first.y + side / 2.0) && cyan(first.x + side, first.y + side / 2.0));
    assert!(cyan(first.x + side / 2.0, first.y) && cyan(first.x + side / 2.0, first.y + side));
    assert!(!cyan(first.x + side / 2.0, first.y + side / 2.0), "inner edges are not drawn");
}

#[test]
fn candidates_are_ringed_in_the_colour_of_their_kind() {
    let frame = blank();
    let result = scene();
    let settings = FigureSettings::default();
    let scene = Scene::new(&frame, &result, &settings).unwrap();
    let view = scene.view(ONE_PANEL, 1.0).unwrap();
    let picture = scene.candidates_panel(&view).unwrap().picture;
    for candidate in &result.candidates {
        let (x, y) = view.at(candidate.px.row, candidate.px.col);
        let on_ring = rgb(picture.pixel(x as u32, (y + 17.0 * view.unit) as u32).unwrap());
        assert_eq!(on_ring, colour::kind(candidate.kind).0, "{}", candidate.reason);
    }
}

#[test]
fn columns_are_dots_in_the_colour_of_their_sublattice() {
    let mut result = scene();
    result.columns.confidence = vec![1.0; 450];
    let picture = columns_figure(&blank(), &result, &FigureSettings::default()).unwrap();
    let coloured = coloured_in_panel(&picture);
    for sublattice in [colour::A_COLUMN, colour::B_COLUMN] {
        let dots = coloured.iter().filter(|c| **c == sublattice).count();
        assert!(dots > 225 * 20, "{sublattice:?}: {dots}");
    }
    result.columns.class.pop();
    let refused = columns_figure(&blank(), &result, &FigureSettings::default());
    assert!(matches!(refused, Err(FigureError::ColumnTable { lengths: [450, 450, 449, 450] })));
}

#[test]
fn a_map_of_another_shape_is_refused() {
    let mut result = uniform(1.0, 1.0);
    result.p_y = Grid::new(1, 2, vec![0.0, 1.0]).unwrap();
    let refused = polarization_map(&blank(), &result, &FigureSettings::default());
    assert!(matches!(
        refused,
        Err(FigureError::GridShape { name: "p_y", found: [1, 2], expected: [42, 42] })
    ));
}

#[test]
fn positions_from_outside_do_no_harm() {
    let mut result = scene();
    for (candidate, at) in result.candidates.iter_mut().zip([f64::NAN, f64::INFINITY, 1e300, -1e9]) {
        candidate.px = PixelPosition { row: at, col: at };
        candidate.reason = "\u{7}\n".repeat(5000);
    }
    result.columns.row[0] = f32::NAN;
    result.columns.row[1] = 1e30;
    result.grid.step_row = 0.0;
    result.mistilt.tiles.step_col = f64::NAN;
    result.calibration.pixel_size_pm = [1e-300, f64::MAX];
    write_all(tempfile::tempdir().unwrap().path(), "x", &lattice(), &result).unwrap();
}

#[test]
fn settings_out_of_range_are_named() {
    let settings = FigureSettings { full_scale_pm: 0.0, ..FigureSettings::default() };
    assert_eq!(settings.validate("figure").unwrap_err().key, "figure.full_scale_pm");
    let settings = FigureSettings { contrast_percent: [99.0, 1.0], ..FigureSettings::default() };
    assert_eq!(settings.validate("figure").unwrap_err().key, "figure.contrast_percent");
    assert!(FigureSettings::default().validate("figure").is_ok());
}
