//! `ferrostem compare`: where the results of two sessions differ.

use super::say;
use crate::session::compare::{Comparison, FrameName, Presence, Tolerances, compare as compare_sessions};
use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::ProgressBar;
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit status where the sessions differ; 0, 1 and 2 mean what they mean with diff and cmp.
const DIFFERENT: u8 = 1;
/// The exit status where they could not be compared.
pub(super) const ERROR: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// A session.
    a: PathBuf,
    /// The other session, of the same frames.
    b: PathBuf,
    /// Largest difference that counts as none, in the quantity's own unit: a number for all, or NAME=NUMBER for one (p_x, cell_a, …;
    /// columns and candidates: px). Without it, every bit counts.
    #[arg(long, value_name = "[NAME=]NUMBER")]
    tolerance: Vec<String>,
    /// Everything as one JSON line.
    #[arg(long)]
    json: bool,
}

pub(super) fn compare(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let tolerances = tolerances(&args.tolerance)?;
    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let comparison = compare_sessions(&args.a, &args.b, &tolerances, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let comparison = comparison?;
    if args.json {
        say(serde_json::to_string(&comparison)?)?;
    } else {
        say(text(&comparison))?;
    }
    Ok(if comparison.same { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

fn tolerances(texts: &[String]) -> anyhow::Result<Tolerances> {
    let mut tolerances = Tolerances::default();
    for text in texts {
        let (name, number) = text.split_once('=').map_or((None, text.as_str()), |(n, v)| (Some(n), v));
        let number: f64 = number.parse().with_context(|| format!("--tolerance {text}: expected a number"))?;
        if !(number >= 0.0 && number.is_finite()) {
            bail!("--tolerance {text}: expected a number of at least 0");
        }
        match name {
            Some(name) => {
                let names = Tolerances::names();
                if !names.contains(&name) {
                    bail!("--tolerance {text}: no quantity is called {name}; there are {}", names.join(", "));
                }
                tolerances.named.insert(name.to_owned(), number);
            }
            None => tolerances.every = number,
        }
    }
    Ok(tolerances)
}

/// For people: what differs, or that nothing does.
fn text(found: &Comparison) -> String {
    let mut lines = Vec::new();
    let mut presence = |what: &str, presence: &Presence| {
        lines.push(format!("{what}: {} in both{}", presence.both, only(presence)));
    };
    presence("frames", &found.frames);
    presence("results", &found.results);
    for (what, frames) in [
        ("pixels differ", &found.pixels_differ),
        ("grids differ", &found.grids_differ),
        ("calibrations differ", &found.calibrations_differ),
    ] {
        if let Some(first) = frames.first() {
            lines.push(format!("{what}: {} frames, first {first}", frames.len()));
        }
    }
    for q in found.quantities.iter().filter(|q| !q.is_none() || q.max_abs > 0.0) {
        let worst = q.worst.as_ref().map_or(String::new(), |worst| {
            let (frame, row, col) = (&worst.frame, worst.row, worst.col);
            format!("; worst in {frame} at [{row}, {col}]: {} and {}", worst.a, worst.b)
        });
        let (name, units) = (q.name, q.units);
        lines.push(format!(
            "{name}: {} of {} differ by more than {} {units}, at most {:.6}, rms {:.6}, {} NaN in one only, {} maps missing{worst}",
            q.differing, q.values, q.tolerance, q.max_abs, q.rms, q.nan_mismatches, q.maps_missing
        ));
    }
    let columns = &found.columns;
    if !columns.is_none() {
        lines.push(format!(
            "columns: {} matched, {} and {} in one only, {} moved (at most {:.4} px), {} of another class",
            columns.matched,
            columns.only_a,
            columns.only_b,
            columns.moved,
            columns.max_distance_px,
            columns.class_differs
        ));
    }
    let candidates = &found.candidates;
    if !candidates.is_none() {
        lines.push(format!(
            "candidates: {} matched, {} and {} in one only, {} with another id, {} moved, {} otherwise different",
            candidates.matched,
            candidates.only_a,
            candidates.only_b,
            candidates.id_differs,
            candidates.moved,
            candidates.content_differs
        ));
    }
    for (what, changes) in [("model", &found.models), ("config", &found.config)] {
        for change in changes {
            let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".to_owned());
            lines.push(format!("{what} {}: {} | {}", change.key, side(&change.a), side(&change.b)));
        }
    }
    lines.push(if found.same { "same".to_owned() } else { "different".to_owned() });
    lines.join("\n")
}

fn only(presence: &Presence) -> String {
    let some = |side: &str, frames: &[FrameName]| match frames.first() {
        Some(first) => format!(", {} in {side} only (first {first})", frames.len()),
        None => String::new(),
    };
    format!("{}{}", some("A", &presence.only_a), some("B", &presence.only_b))
}
