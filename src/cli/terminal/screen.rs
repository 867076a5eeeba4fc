//! How a [`ViewState`] is laid out on a screen of at least 80 × 24 characters; smaller ones get the numbers only.

use super::state::{HISTOGRAM_BIN_PM, HISTOGRAM_BINS, PolarizationSummary, ViewState};
use crate::figure::colour;
use ferrostem_proto::{Candidate, GridSpec};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Bar, BarChart, BarGroup, Block, BorderType, Paragraph, Widget};

/// |P| at which the colours of the map saturate, as in the pictures.
const FULL_SCALE_PM: f32 = 50.0;
const FAINT: Color = Color::DarkGray;
const ACCENT: Color = Color::Cyan;

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColourDepth {
    /// 24 bits.
    True,
    /// The 6 × 6 × 6 cube of 256-colour terminals.
    Cube,
}

/// One drawing of a state.
#[derive(Debug, Clone, Copy)]
pub struct Screen<'a> {
    pub state: &'a ViewState,
    pub depth: ColourDepth,
}

impl ColourDepth {
    /// By the convention of `COLORTERM`.
    pub fn from_environment() -> Self {
        match std::env::var("COLORTERM").as_deref() {
            Ok("truecolor" | "24bit") => Self::True,
            _ => Self::Cube,
        }
    }

    fn colour(self, [r, g, b]: colour::Rgb) -> Color {
        let level = |channel: u8| (u16::from(channel) * 5 + 127) / 255;
        match self {
            Self::True => Color::Rgb(r, g, b),
            Self::Cube => Color::Indexed((16 + 36 * level(r) + 6 * level(g) + level(b)) as u8),
        }
    }
}

impl Widget for Screen<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        if area.width < 76 || area.height < 22 {
            return self.small(area, buffer);
        }
        let [title, upper, lower, controller, engine, log] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(12),
            // Room for more candidates on a tall screen.
            Constraint::Length((area.height / 4).clamp(7, 14)),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(1),
        ])
        .areas(area);
        let map_width = (upper.height * 2).clamp(26, area.width - 48);
        let [map, numbers] =
            Layout::horizontal([Constraint::Length(map_width), Constraint::Min(40)]).areas(upper);
        let [stream, field] = Layout::vertical([Constraint::Length(6), Constraint::Max(11)]).areas(numbers);
        let [candidates, trust, stages] =
            Layout::horizontal([Constraint::Min(38), Constraint::Length(19), Constraint::Length(22)])
                .areas(lower);

        self.title(title, buffer);
        self.map(map, buffer);
        self.stream().block(block("Stream")).render(stream, buffer);
        self.field(field, buffer);
        self.candidates(candidates, buffer);
        self.trust().block(block("Trust")).render(trust, buffer);
        self.stages().block(block("Stages, ms")).render(stages, buffer);
        labelled("controller", &self.state.controller).render(controller, buffer);
        self.engine().render(engine, buffer);
        self.log_line(log, buffer);
    }
}

impl Screen<'_> {
    fn title(&self, area: Rect, buffer: &mut Buffer) {
        let state = self.state;
        let name = if state.acquisition.is_empty() { "no acquisition yet" } else { &state.acquisition };
        let seq = state.seq.map_or_else(String::new, |seq| format!(" · frame {seq}"));
        let style = Style::new().fg(Color::Black).bg(ACCENT);
        buffer.set_style(area, style);
        let program = Span::styled(" FerroSTEM ", Modifier::BOLD);
        Line::from(vec![program, Span::raw(format!(" {}{seq}", printable(name)))]).render(area, buffer);
        if state.recording.is_some() {
            Line::from(" ● REC ")
                .style(Style::new().fg(Color::White).bg(Color::Red))
                .right_aligned()
                .render(area, buffer);
        }
    }

    fn stream(&self) -> Paragraph<'static> {
        let (state, counters) = (self.state, &self.state.counters);
        let rate = vec![
            Span::styled(format!("{:.1} frames/s", state.frame_rate_hz), Modifier::BOLD),
            Span::styled("   latency ", FAINT),
            Span::raw(format!("p50 {:.1} ms  p99 {:.1} ms", state.latency_p50_ms, state.latency_p99_ms)),
        ];
        let counts = |names: &[(&'static str, u64, bool)]| -> Line<'static> {
            let spans = names.iter().flat_map(|&(name, count, is_trouble)| {
                let style =
                    if is_trouble && count > 0 { Style::new().fg(Color::Yellow) } else { Style::new() };
                [Span::styled(name, FAINT), Span::styled(format!(" {count}  "), style)]
            });
            Line::from(spans.collect::<Vec<_>>())
        };
        Paragraph::new(vec![
            Line::from(rate),
            counts(&[
                ("received", counters.received, false),
                ("processed", counters.processed, false),
                ("superseded", counters.superseded, false),
            ]),
            counts(&[
                ("gaps", counters.gaps, true),
                ("repeats", counters.repeats, true),
                ("restarts", counters.restarts, true),
                ("rejected", counters.rejected, true),
            ]),
            counts(&[
                ("partial", counters.partial_skipped, false),
                ("unpublished", counters.publish_dropped, true),
                ("unrecorded", counters.record_dropped, true),
            ]),
        ])
    }

    fn field(&self, area: Rect, buffer: &mut Buffer) {
        let frame = block("Polarization, pm");
        let inner = frame.inner(area);
        frame.render(area, buffer);
        let Some(summary) = self.state.polarization else {
            return Paragraph::new("not measured").style(FAINT).render(inner, buffer);
        };
        let [numbers, histogram] =
            Layout::horizontal([Constraint::Length(20), Constraint::Min(HISTOGRAM_BINS as u16)]).areas(inner);
        let PolarizationSummary { measured, windows, mean_x, mean_y, std_x, std_y, mean_length, .. } =
            summary;
        Paragraph::new(vec![
            Line::from(format!("P_x {mean_x:+6.1} ± {std_x:.1}")),
            Line::from(format!("P_y {mean_y:+6.1} ± {std_y:.1}")),
            Line::from(format!("|P| {mean_length:6.1}")),
            Line::from(format!("{measured}/{windows} windows")).style(FAINT),
        ])
        .render(numbers, buffer);

        let [bars, axis] = Layout::vertical([Constraint::Min(2), Constraint::Length(1)]).areas(histogram);
        let width = (bars.width / HISTOGRAM_BINS as u16).clamp(1, 4);
        let chart = summary.histogram.iter().map(|count| Bar::default().value(*count).text_value(""));
        BarChart::default()
            .data(BarGroup::default().bars(&chart.collect::<Vec<_>>()))
            .bar_width(width)
            .bar_gap(0)
            .bar_style(ACCENT)
            .render(bars, buffer);
        let end = HISTOGRAM_BIN_PM * HISTOGRAM_BINS as f32;
        let room = usize::from(width) * HISTOGRAM_BINS;
        Line::from(format!("0{:>w$}", format!("|P| {end}+"), w = room - 1)).style(FAINT).render(axis, buffer);
    }

    /// Two windows a character, the upper as foreground of "▀", the lower as its background.
    fn map(&self, area: Rect, buffer: &mut Buffer) {
        let key = [("→", 1.0, 0.0), ("↑", 0.0, -1.0), ("←", -1.0, 0.0), ("↓", 0.0, 1.0)];
        let key = key.map(|(arrow, x, y)| Span::styled(arrow, self.vector_colour(x * 1e3, y * 1e3)));
        let frame = block("P direction").title_bottom(Line::from_iter(key).right_aligned());
        let inner = frame.inner(area);
        frame.render(area, buffer);
        let map = &self.state.map;
        let [rows, cols] = map.p_x.shape();
        if rows == 0 || cols == 0 || inner.is_empty() {
            return Paragraph::new("not measured").style(FAINT).render(inner, buffer);
        }
        let scale = (f64::from(inner.width) / cols as f64).min(f64::from(inner.height) * 2.0 / rows as f64);
        let size = MapSize {
            width: ((cols as f64 * scale) as u16).clamp(1, inner.width),
            height: ((rows as f64 * scale) as u16).clamp(2, inner.height * 2) & !1,
        };
        let left = inner.x + (inner.width - size.width) / 2;
        let top = inner.y + (inner.height - size.height / 2) / 2;
        let colour_at = |x: u16, y: u16| {
            let (i, j) = size.window(x, y, (rows, cols));
            let vector = map.p_x.get(i, j).zip(map.p_y.get(i, j));
            let (p_x, p_y) = vector.map_or((f32::NAN, f32::NAN), |(x, y)| (*x, *y));
            self.vector_colour(p_x, p_y)
        };
        for y in 0..size.height / 2 {
            for x in 0..size.width {
                let style = Style::new().fg(colour_at(x, 2 * y)).bg(colour_at(x, 2 * y + 1));
                buffer.set_string(left + x, top + y, "▀", style);
            }
        }
        for (rank, candidate) in (1..=9).zip(&self.state.candidates) {
            if let Some((x, y)) = size.place(candidate, &map.grid) {
                let style = Style::new().fg(Color::Black).bg(Color::White).add_modifier(Modifier::BOLD);
                buffer.set_string(left + x, top + y, rank.to_string(), style);
            }
        }
    }

    /// Dark where P was not measured.
    fn vector_colour(&self, p_x: f32, p_y: f32) -> Color {
        self.depth.colour(colour::wheel(p_x, p_y, FULL_SCALE_PM).unwrap_or(colour::HATCH[0]))
    }

    fn candidates(&self, area: Rect, buffer: &mut Buffer) {
        let list = &self.state.candidates;
        let frame = block(&format!("Candidates ({})", list.len()));
        let rows = usize::from(frame.inner(area).height);
        let line = |(rank, candidate): (usize, &Candidate)| {
            let (rgb, name) = colour::kind(candidate.kind);
            Line::from(vec![
                Span::styled(format!("{rank} "), Modifier::BOLD),
                Span::styled(name, self.depth.colour(rgb)),
                Span::raw(format!(" {:.1} ", candidate.score)),
                Span::styled(printable(&candidate.reason), FAINT),
            ])
        };
        let lines = match list.len() {
            0 => vec![Line::from("none in this frame").style(FAINT)],
            _ => (1..).zip(list).take(rows).map(line).collect(),
        };
        Paragraph::new(lines).block(frame).render(area, buffer);
    }

    fn trust(&self) -> Paragraph<'static> {
        let flagged = match self.state.ood_fraction {
            Some(fraction) => format!("{:>6.1} %", fraction * 100.0),
            None => "     –".to_owned(),
        };
        let mut lines = vec![Line::from(format!("flagged {flagged}"))];
        for state in [1u8, 2, 3, 0] {
            let (rgb, name) = colour::tile_state(state);
            lines.push(Line::from(vec![
                Span::styled(format!("{name:<13}"), self.depth.colour(rgb)),
                Span::raw(format!("{:>3}", self.state.tiles[usize::from(state)])),
            ]));
        }
        Paragraph::new(lines)
    }

    fn stages(&self) -> Paragraph<'static> {
        let line = |(name, us): &(String, u64)| {
            let name: String = printable(name).chars().take(11).collect();
            Line::from(format!("{name:<11} {:>7.2}", *us as f64 / 1000.0))
        };
        Paragraph::new(self.state.stages_us.iter().map(line).collect::<Vec<_>>())
    }

    fn engine(&self) -> Line<'static> {
        let state = self.state;
        let mut line = labelled("device", &state.device);
        line.extend(labelled("   models", &state.models));
        if let Some(path) = &state.recording {
            line.extend(labelled("   recording", path));
        }
        line
    }

    fn log_line(&self, area: Rect, buffer: &mut Buffer) {
        let hint = Line::from(" q quits ").style(Modifier::REVERSED);
        let [log, key] =
            Layout::horizontal([Constraint::Min(10), Constraint::Length(hint.width() as u16)]).areas(area);
        Line::from(printable(&self.state.log)).style(FAINT).render(log, buffer);
        hint.render(key, buffer);
    }

    fn small(&self, area: Rect, buffer: &mut Buffer) {
        let state = self.state;
        let mut lines = vec![
            Line::from(format!("FerroSTEM {}", printable(&state.acquisition))).style(Modifier::BOLD),
            Line::from(state.seq.map_or("no frame yet".to_owned(), |seq| format!("frame {seq}"))),
            Line::from(format!("{:.1} frames/s", state.frame_rate_hz)),
            Line::from(format!("p50 {:.1} ms p99 {:.1} ms", state.latency_p50_ms, state.latency_p99_ms)),
        ];
        if let Some(summary) = state.polarization {
            lines.push(Line::from(format!("|P| {:.1} pm", summary.mean_length)));
        }
        lines.push(Line::from(format!("{} candidates", state.candidates.len())));
        lines.push(Line::from("q quits; 80 x 24 shows all").style(FAINT));
        Paragraph::new(lines).render(area, buffer);
    }
}

/// The map in half-characters.
struct MapSize {
    width: u16,
    height: u16,
}

impl MapSize {
    fn window(&self, x: u16, y: u16, (rows, cols): (usize, usize)) -> (usize, usize) {
        let nearest = |at: u16, size: u16, count: usize| {
            ((f64::from(at) + 0.5) / f64::from(size) * count as f64) as usize
        };
        (nearest(y, self.height, rows), nearest(x, self.width, cols))
    }

    /// Character of the map that a candidate lies on, `None` outside of it.
    fn place(&self, candidate: &Candidate, grid: &GridSpec) -> Option<(u16, u16)> {
        let index = |at: f64, first: f64, step: f64| (at - first) / step + 0.5;
        let row = index(candidate.px.row, grid.row0, grid.step_row) / f64::from(grid.rows);
        let col = index(candidate.px.col, grid.col0, grid.step_col) / f64::from(grid.cols);
        let inside = (0.0..1.0).contains(&row) && (0.0..1.0).contains(&col);
        inside.then(|| ((col * f64::from(self.width)) as u16, (row * f64::from(self.height)) as u16 / 2))
    }
}

fn block(title: &str) -> Block<'static> {
    let title = Line::from(format!(" {title} ")).style(Modifier::BOLD);
    Block::bordered().border_type(BorderType::Rounded).border_style(FAINT).title(title)
}

fn labelled(label: &str, text: &str) -> Line<'static> {
    let shown = if text.is_empty() { "–".to_owned() } else { printable(text) };
    Line::from(vec![Span::styled(format!("{label} "), FAINT), Span::raw(shown)])
}

/// Text from outside, without characters that steer a terminal.
fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
