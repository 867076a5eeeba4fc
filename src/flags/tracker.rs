//! The same site keeps its id from frame to frame, as long as it is seen again where the specimen went.
//!
//! Sites are remembered by their place in the specimen: the scan may move, turn and zoom, and what the specimen drifted is
//! measured ([`drift`](super::drift)) and taken off. Where frames have no pixel size, places are fractions of the field of
//! view, and a scan that moves makes new sites.
//!
//! A site that should be in the frame and is not seen for [`TrackerSettings::forget_after_frames`] frames loses its id; one
//! outside the frame waits. What the controller rejected or finished is not offered again, forgotten or not, by whatever id:
//! its place is remembered. A missing atom and the strange window around it are one kind of thing here.

use super::candidates::Site;
use super::drift::{Look, Motion};
use crate::config::InvalidSetting;
use crate::frame::Frame;
use ferrostem_proto::control::Verdict;
use ferrostem_proto::{Calibration, CalibrationSource, Candidate, CandidateKind};
use serde::{Deserialize, Serialize};

/// When two sightings are one site, and how long it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerSettings {
    /// Sightings of one kind nearer than this are the same site, nm.
    pub match_within_nm: f64,
    /// Nothing of the kind is offered this near to a site that was rejected or is done, nm.
    pub closed_within_nm: f64,
    /// A site in view that is not seen for this many frames is forgotten.
    pub forget_after_frames: u64,
    /// The most that the specimen drifts from one frame to the next, nm; 0 and no drift is looked for.
    pub max_drift_nm: f64,
    /// How long a published candidate stays valid, ms.
    pub valid_for_ms: u64,
}

impl Default for TrackerSettings {
    fn default() -> Self {
        Self {
            match_within_nm: 0.8,
            closed_within_nm: 1.2,
            forget_after_frames: 10,
            max_drift_nm: 0.5,
            valid_for_ms: 5000,
        }
    }
}

impl TrackerSettings {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), InvalidSetting> {
        let distances = [
            ("match_within_nm", self.match_within_nm, 1e3, "0 to 1000"),
            ("closed_within_nm", self.closed_within_nm, 1e3, "0 to 1000"),
            ("max_drift_nm", self.max_drift_nm, 5.0, "0 to 5"),
        ];
        for (key, value, largest, expected) in distances {
            if !(0.0..=largest).contains(&value) {
                return Err(InvalidSetting::new(format!("{prefix}.{key}"), value, expected));
            }
        }
        if self.forget_after_frames == 0 {
            return Err(InvalidSetting::new(format!("{prefix}.forget_after_frames"), 0, "at least 1"));
        }
        Ok(())
    }
}

/// The frame that sites were found in.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    pub frame: &'a Frame,
    pub calibration: &'a Calibration,
    /// The network behind it, by name.
    pub model: &'a str,
    pub now_ns: u64,
}

/// A remembered site.
#[derive(Debug, Clone)]
struct Track {
    id: u64,
    sort: Sort,
    place: Place,
    first_seq: u64,
    /// Frames in a row in which it should have been seen and was not.
    missed: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Offered whenever it is seen.
    Open,
    /// Its id is not given again; kept for a late acknowledgement.
    Forgotten,
    /// Rejected or done: nothing is offered there.
    Closed,
}

/// What can be the same site.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sort {
    Kind(CandidateKind),
    /// The user's expression of this name.
    Expression(String),
}

impl Sort {
    fn of(site: &Site) -> Self {
        match (&site.expression, site.kind) {
            (Some(name), _) => Self::Expression(name.clone()),
            (None, CandidateKind::Column) => Self::Kind(CandidateKind::Ood),
            (None, kind) => Self::Kind(kind),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// `[y, x]`, nm, of the specimen, less its drift.
    Specimen([f64; 2]),
    /// `[y, x]` of the field of view.
    View([f64; 2]),
}

/// Fractions of the field of view that stand for `match_within_nm` where there is no pixel size.
const VIEW_MATCH: f64 = 0.03;
/// A site this near to the border of the frame, nm, may be missed without being gone: windows end half of their size before it.
const BORDER_NM: f64 = 0.9;
/// Closed and forgotten sites that are remembered, each.
const MAX_REMEMBERED: usize = 4096;

/// The scan as places are read in it.
struct View<'a> {
    frame: &'a Frame,
    pixel_size_pm: [f64; 2],
    drift_nm: [f64; 2],
}

impl View<'_> {
    fn place(&self, site: &Site) -> Place {
        if site.nm.x.is_finite() && site.nm.y.is_finite() {
            let [y, x] = self.frame.scan.center_nm;
            Place::Specimen([y + site.nm.y - self.drift_nm[0], x + site.nm.x - self.drift_nm[1]])
        } else {
            Place::View([site.frac.y, site.frac.x])
        }
    }

    /// Whether a site at `place` would be found in this frame.
    fn shows(&self, place: Place) -> bool {
        let Place::Specimen(at) = place else { return true };
        let [y, x] = [0, 1].map(|axis| at[axis] + self.drift_nm[axis] - self.frame.scan.center_nm[axis]);
        let (sin, cos) = self.frame.scan.rotation_rad.sin_cos();
        let (rows, cols) = self.frame.pixels.dim();
        let within = |off_nm: f64, count: usize, pixel_pm: f64| {
            off_nm.abs() <= 0.5 * count as f64 * pixel_pm / 1000.0 - BORDER_NM
        };
        within(y * cos + x * sin, rows, self.pixel_size_pm[0])
            && within(x * cos - y * sin, cols, self.pixel_size_pm[1])
    }
}

impl Place {
    /// Distance in units of `within_nm`, or of what stands for it; `None` between different kinds of places.
    fn distance(self, other: Self, within_nm: f64, settings: &TrackerSettings) -> Option<f64> {
        let (a, b, within) = match (self, other) {
            (Self::Specimen(a), Self::Specimen(b)) => (a, b, within_nm),
            (Self::View(a), Self::View(b)) => (a, b, VIEW_MATCH * within_nm / settings.match_within_nm),
            _ => return None,
        };
        Some((a[0] - b[0]).hypot(a[1] - b[1]) / within)
    }
}

/// Gives sites their ids. One per daemon; frames must come in order.
#[derive(Debug)]
pub struct Tracker {
    settings: TrackerSettings,
    tracks: Vec<Track>,
    motion: Motion,
    next_id: u64,
}

impl Tracker {
    pub fn new(settings: TrackerSettings) -> Self {
        Self { settings, tracks: Vec::new(), motion: Motion::default(), next_id: 1 }
    }

    /// Applies new settings to what is remembered.
    pub const fn set_settings(&mut self, settings: TrackerSettings) {
        self.settings = settings;
    }

    /// Turns ranked sites into candidates: a site seen before keeps its id, one that was rejected or done is left out.
    pub fn track(&mut self, sites: Vec<Site>, sighting: &Sighting<'_>) -> Vec<Candidate> {
        let view = self.look(&sites, sighting);
        let places: Vec<(Sort, Place)> =
            sites.iter().map(|site| (Sort::of(site), view.place(site))).collect();
        let matched = self.matches(&places);
        let mut seen = vec![false; self.tracks.len()];
        for track in matched.iter().flatten() {
            if let Some(seen) = seen.get_mut(*track) {
                *seen = true;
            }
        }
        for (track, seen) in self.tracks.iter_mut().zip(seen) {
            if track.state == State::Open && !seen && view.shows(track.place) {
                track.missed += 1;
                if track.missed > self.settings.forget_after_frames {
                    track.state = State::Forgotten;
                }
            }
        }
        let valid_ns = self.settings.valid_for_ms.saturating_mul(1_000_000);
        let mut candidates = Vec::new();
        for ((site, (sort, place)), matched) in sites.into_iter().zip(places).zip(matched) {
            if self.is_closed(&sort, place) {
                continue;
            }
            let (id, first_seq) = self.sight(matched, sort, place, sighting.frame.seq);
            candidates.push(Candidate {
                id,
                kind: site.kind,
                px: site.px,
                frac: site.frac,
                nm: site.nm,
                score: site.score,
                p_value: site.p_value,
                reason: site.reason,
                first_seq,
                seq: sighting.frame.seq,
                valid_until_ns: sighting.now_ns.saturating_add(valid_ns),
                model: sighting.model.to_owned(),
            });
        }
        self.forget_oldest();
        candidates
    }

    /// Where the specimen is in this frame.
    fn look<'a>(&mut self, sites: &[Site], sighting: &Sighting<'a>) -> View<'a> {
        let Sighting { frame, calibration, .. } = *sighting;
        let pixel_size_pm = known_pixel_size(calibration);
        // Points of walls and tilted areas slide along them.
        let single = |site: &&Site| site.region.is_none() || site.kind == CandidateKind::Ood;
        let sites_nm: Vec<[f64; 2]> =
            sites.iter().filter(single).map(|site| [site.nm.y, site.nm.x]).collect();
        let look = Look { frame, pixel_size_pm, sites_nm: &sites_nm };
        let drift_nm = self.motion.follow(&look, self.settings.max_drift_nm);
        View { frame, pixel_size_pm, drift_nm }
    }

    /// The open track of each site: the nearest pairs first, each track for one site.
    fn matches(&self, places: &[(Sort, Place)]) -> Vec<Option<usize>> {
        let open = || self.tracks.iter().enumerate().filter(|(_, track)| track.state == State::Open);
        let within = self.settings.match_within_nm;
        let mut pairs: Vec<(f64, usize, usize)> = places
            .iter()
            .enumerate()
            .flat_map(|(site, (sort, place))| {
                open().filter(move |(_, track)| track.sort == *sort).filter_map(move |(index, track)| {
                    let distance = track.place.distance(*place, within, &self.settings)?;
                    (distance <= 1.0).then_some((distance, site, index))
                })
            })
            .collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut matched = vec![None; places.len()];
        let mut taken = vec![false; self.tracks.len()];
        for (_, site, track) in pairs {
            if let (Some(site @ None), Some(taken @ false)) = (matched.get_mut(site), taken.get_mut(track)) {
                *site = Some(track);
                *taken = true;
            }
        }
        matched
    }

    fn is_closed(&self, sort: &Sort, place: Place) -> bool {
        self.tracks.iter().filter(|track| track.state == State::Closed && track.sort == *sort).any(|track| {
            let distance = track.place.distance(place, self.settings.closed_within_nm, &self.settings);
            distance.is_some_and(|distance| distance <= 1.0)
        })
    }

    /// Notes where a site is now, and returns its id and the frame in which it was first seen.
    fn sight(&mut self, matched: Option<usize>, sort: Sort, place: Place, seq: u64) -> (u64, u64) {
        if let Some(track) = matched.and_then(|index| self.tracks.get_mut(index)) {
            track.place = place;
            track.missed = 0;
            return (track.id, track.first_seq);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.tracks.push(Track { id, sort, place, first_seq: seq, missed: 0, state: State::Open });
        (id, seq)
    }

    fn forget_oldest(&mut self) {
        for state in [State::Closed, State::Forgotten, State::Open] {
            let count = self.tracks.iter().filter(|track| track.state == state).count();
            let mut surplus = count.saturating_sub(MAX_REMEMBERED);
            self.tracks.retain(|track| {
                let old = track.state == state && surplus > 0;
                surplus -= usize::from(old);
                !old
            });
        }
    }

    /// What the controller made of a candidate. Rejected and finished sites are not offered again, unless it accepts them
    /// after all; that a candidate expired says nothing of its site. Returns whether the id is known; a candidate that was
    /// forgotten meanwhile still is, for a while.
    pub fn acknowledge(&mut self, id: u64, verdict: Verdict) -> bool {
        let Some(track) = self.tracks.iter_mut().find(|track| track.id == id) else { return false };
        match verdict {
            Verdict::Rejected | Verdict::Done => track.state = State::Closed,
            Verdict::Accepted if track.state == State::Closed => track.state = State::Open,
            Verdict::Accepted | Verdict::Expired => {}
        }
        true
    }
}

/// `[row, col]`, NaN where the frame has none.
fn known_pixel_size(calibration: &Calibration) -> [f64; 2] {
    match calibration.source {
        CalibrationSource::None => [f64::NAN; 2],
        _ => calibration.pixel_size_pm,
    }
}

#[cfg(test)]
mod tests;
