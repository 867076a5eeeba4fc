use super::*;
use ferrostem_proto::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

fn grid<T: Clone>(rows: usize, cols: usize, value: impl Fn(usize, usize) -> T) -> Grid<T> {
    Grid::new(rows, cols, (0..rows * cols).map(|i| value(i / cols, i % cols)).collect()).unwrap()
}

fn candidate(id: u64, kind: CandidateKind, at: (f64, f64), reason: &str) -> Candidate {
    Candidate {
        id,
        kind,
        px: PixelPosition { row: at.0, col: at.1 },
        frac: FractionalPosition::default(),
        nm: StagePosition::default(),
        score: 12.5,
        p_value: 0.001,
        reason: reason.into(),
        first_seq: 40,
        seq: 42,
        valid_until_ns: 0,
        model: "dcnn".into(),
    }
}

/// P along +x in the left half of the frame, along -x in the right.
fn result() -> ResultMessage {
    let p_x = |_, j| if j < 16 { 40.0 } else { -40.0 };
    ResultMessage {
        acquisition: "BFO-17".into(),
        seq: 42,
        grid: GridSpec { row0: 40.0, col0: 40.0, step_row: 8.0, step_col: 8.0, rows: 32, cols: 32 },
        p_x: grid(32, 32, p_x),
        p_y: grid(32, 32, |i, _| if i == 0 { f32::NAN } else { 0.0 }),
        ood: OodMaps {
            p_value: grid(32, 32, |i, _| if i == 0 { f32::NAN } else { 0.5 }),
            flag: grid(32, 32, |i, j| u8::from(i == 1 && j < 31)),
        },
        mistilt: MistiltMaps {
            state: grid(2, 4, |i, j| [[0, 1, 1, 2], [3, 1, 77, 2]][i][j]),
            ..Default::default()
        },
        candidates: vec![
            candidate(3, CandidateKind::DomainWall, (168.0, 168.0), "P turns by 180° within 1 nm"),
            candidate(5, CandidateKind::Ood, (48.0, 200.0), "unlike the training set\u{1b}[2J"),
        ],
        timing: Timing {
            stages_us: vec![("preprocess".into(), 1250), ("networks".into(), 15_400)],
            ..Timing::default()
        },
        counters: Counters { received: 120, processed: 100, superseded: 20, gaps: 2, ..Counters::default() },
        ..ResultMessage::default()
    }
}

fn state() -> ViewState {
    let mut state = ViewState {
        controller: "steering to 3, domain wall at (168, 168)".into(),
        log: "source microscope connected".into(),
        ..ViewState::default()
    };
    state.observe(&result());
    state.observe_status(&StatusMessage {
        frame_rate_hz: 12.3,
        latency_p50_us: 21_400,
        latency_p99_us: 35_000,
        device: "cpu (flex)".into(),
        model: ModelIds {
            dcnn: Some(ModelId { name: "dcnn-bfo".into(), sha256: String::new() }),
            fcnn: None,
        },
        recording: Some("session.h5".into()),
        counters: result().counters,
        ..StatusMessage::default()
    });
    state
}

fn draw(state: &ViewState, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let screen = Screen { state, depth: ColourDepth::True };
    terminal.draw(|frame| frame.render_widget(screen, frame.area())).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let symbols: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
    symbols.chunks(width).map(|line| line.concat() + "\n").collect()
}

#[test]
fn everything_has_its_place_on_80_by_24() {
    let screen = text(&draw(&state(), 80, 24));
    for expected in [
        "FerroSTEM  BFO-17 · frame 42",
        "● REC",
        "12.3 frames/s   latency p50 21.4 ms  p99 35.0 ms",
        "received 120  processed 100  superseded 20",
        "gaps 2  repeats 0  restarts 0  rejected 0",
        "unpublished 0  unrecorded 0",
        "P_x   +0.0 ± 40.0",
        "|P|   40.0",
        "992/1024 windows",
        "Candidates (2)",
        "1 domain wall 12.5 P turns by 180°",
        "2 out of distribution 12.5 unlike",
        "flagged    3.1 %",
        "consistent     3",
        "suspect        2",
        "undetermined   1",
        "not evaluated  2",
        "preprocess     1.25",
        "networks      15.40",
        "controller steering to 3, domain wall at (168, 168)",
        "device cpu (flex)   models dcnn-bfo   recording session.h5",
        "source microscope connected",
        "q quits",
    ] {
        assert!(screen.contains(expected), "{expected:?} is not on\n{screen}");
    }
    assert!(!screen.contains('\u{1b}'), "control characters from outside are not passed on");
}

#[test]
fn the_map_shows_directions_in_the_colours_of_the_wheel() {
    let buffer = draw(&state(), 80, 24);
    let cells: Vec<_> = buffer.content.iter().filter(|cell| cell.symbol() == "▀").collect();
    let count = |colour| cells.iter().filter(|cell| cell.bg == colour).count();
    let (right, left) = (count(Color::Rgb(255, 51, 51)), count(Color::Rgb(51, 255, 255)));
    assert!(right > 80 && right.abs_diff(left) <= 2, "{right} cells to the right, {left} to the left");
    assert_eq!(right + left, cells.len(), "only the first half-row lacks a value");
    // The wall's candidate lies on the boundary, in the middle of the map.
    let (x, y) = (0..80 * 24)
        .map(|i| (i % 80, i / 80))
        .find(|(x, y)| buffer[(*x, *y)].symbol() == "1" && buffer[(*x, *y)].bg == Color::White)
        .unwrap();
    assert_eq!(buffer[(x - 2, y)].bg, Color::Rgb(255, 51, 51));
    assert_eq!(buffer[(x + 2, y)].bg, Color::Rgb(51, 255, 255));
}

#[test]
fn any_size_and_an_empty_state_can_be_drawn() {
    for (width, height) in [(1, 1), (10, 3), (40, 12), (76, 22), (80, 24), (200, 60), (90, 200), (300, 22)] {
        draw(&ViewState::default(), width, height);
        draw(&state(), width, height);
    }
    let screen = text(&draw(&ViewState::default(), 80, 24));
    assert!(screen.contains("no acquisition yet") && screen.contains("none in this frame"));
    assert!(text(&draw(&state(), 40, 12)).contains("p50 21.4 ms p99 35.0 ms"));
}

#[test]
fn the_summary_is_over_measured_windows_only() {
    let nan = f32::NAN;
    let summary = PolarizationSummary::of(&[3.0, -3.0, nan, 0.0], &[4.0, 4.0, 1.0, 1000.0]).unwrap();
    assert_eq!((summary.measured, summary.windows), (3, 4));
    assert_eq!((summary.mean_x, summary.mean_y), (0.0, 336.0));
    assert!((summary.std_x - 6f32.sqrt()).abs() < 1e-5);
    assert!((summary.mean_length - 1010.0 / 3.0).abs() < 1e-3);
    // |P| = 5 lies in the bin from 5 to 10 pm, 1000 in the last one.
    assert_eq!(summary.histogram, [0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(PolarizationSummary::of(&[nan], &[1.0]), None);
}

#[test]
fn q_escape_and_ctrl_c_end_the_view() {
    let key = |code, modifiers| ends_view(KeyEvent::new(code, modifiers));
    assert!(key(KeyCode::Char('q'), KeyModifiers::NONE));
    assert!(key(KeyCode::Esc, KeyModifiers::NONE));
    assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
    assert!(!key(KeyCode::Char('x'), KeyModifiers::NONE));
}

/// Run by hand in a terminal: `cargo test --release --lib terminal::tests::by_hand -- --ignored --nocapture`.
#[test]
#[ignore = "opens the live view in the terminal it runs in; q ends it"]
fn by_hand() {
    let mut view = LiveView::open().unwrap();
    let mut state = state();
    let started = Instant::now();
    while view.update(&state).unwrap() == Wish::Continue {
        let turn = started.elapsed().as_secs_f32();
        state.seq = state.seq.map(|seq| seq + 1);
        state.map.p_x = grid(32, 32, |i, j| 45.0 * ((i as f32 - 16.0).atan2(j as f32 - 16.0) + turn).cos());
        state.map.p_y = grid(32, 32, |i, j| 45.0 * ((i as f32 - 16.0).atan2(j as f32 - 16.0) + turn).sin());
        state.polarization = PolarizationSummary::of(state.map.p_x.values(), state.map.p_y.values());
        std::thread::sleep(Duration::from_millis(20));
    }
}
