//! The same site keeps its id from frame to frame, as long as it is seen again.

use super::candidates::Site;
use crate::config::InvalidSetting;
use crate::frame::Frame;
use ferrostem_proto::control::Verdict;
use ferrostem_proto::{Candidate, CandidateKind};
use serde::{Deserialize, Serialize};

/// When two sightings are one site, and how long it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerSettings {
    /// Sightings of one kind nearer than this are the same site, nm.
    pub match_within_nm: f64,
    /// A site not seen for this many frames is forgotten.
    pub forget_after_frames: u64,
    /// How long a published candidate stays valid, ms.
    pub valid_for_ms: u64,
}

impl Default for TrackerSettings {
    fn default() -> Self {
        Self { match_within_nm: 0.8, forget_after_frames: 10, valid_for_ms: 5000 }
    }
}

impl TrackerSettings {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), InvalidSetting> {
        if !(0.0..=1e3).contains(&self.match_within_nm) {
            return Err(InvalidSetting::new(
                format!("{prefix}.match_within_nm"),
                self.match_within_nm,
                "0 to 1000",
            ));
        }
        if self.forget_after_frames == 0 {
            return Err(InvalidSetting::new(format!("{prefix}.forget_after_frames"), 0, "at least 1"));
        }
        Ok(())
    }
}

/// A remembered site.
#[derive(Debug, Clone)]
struct Track {
    id: u64,
    kind: CandidateKind,
    /// Specimen coordinates where the frame has a pixel size, otherwise fractions of the field of view.
    place: Place,
    first_seq: u64,
    last_seen: u64,
    /// Rejected or done: not offered again.
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// `[y, x]`, nm, of the specimen.
    Specimen([f64; 2]),
    /// `[y, x]` of the field of view.
    View([f64; 2]),
}

/// Fractions of the field of view that stand for `match_within_nm` where there is no pixel size.
const VIEW_MATCH: f64 = 0.03;

impl Place {
    fn of(site: &Site, frame: &Frame) -> Self {
        if site.nm.x.is_finite() && site.nm.y.is_finite() {
            let [y, x] = frame.scan.center_nm;
            Self::Specimen([y + site.nm.y, x + site.nm.x])
        } else {
            Self::View([site.frac.y, site.frac.x])
        }
    }

    /// Distance in units of the matching radius; `None` between different kinds of places.
    fn distance(self, other: Self, settings: &TrackerSettings) -> Option<f64> {
        let (a, b, within) = match (self, other) {
            (Self::Specimen(a), Self::Specimen(b)) => (a, b, settings.match_within_nm),
            (Self::View(a), Self::View(b)) => (a, b, VIEW_MATCH),
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
    frames: u64,
    next_id: u64,
}

impl Tracker {
    pub const fn new(settings: TrackerSettings) -> Self {
        Self { settings, tracks: Vec::new(), frames: 0, next_id: 1 }
    }

    /// Applies new settings to what is remembered.
    pub const fn set_settings(&mut self, settings: TrackerSettings) {
        self.settings = settings;
    }

    /// Turns ranked sites into candidates: a site seen before keeps its id, one that was rejected or done is left out.
    pub fn track(&mut self, sites: Vec<Site>, frame: &Frame, model: &str, now_ns: u64) -> Vec<Candidate> {
        self.frames += 1;
        let valid_until_ns = now_ns.saturating_add(self.settings.valid_for_ms.saturating_mul(1_000_000));
        let mut taken = vec![false; self.tracks.len()];
        let mut candidates = Vec::new();
        for site in sites {
            let place = Place::of(&site, frame);
            let matched = self
                .tracks
                .iter()
                .enumerate()
                .filter(|(index, track)| {
                    track.kind == site.kind && !taken.get(*index).copied().unwrap_or(true)
                })
                .filter_map(|(index, track)| Some((index, track.place.distance(place, &self.settings)?)))
                .filter(|(_, distance)| *distance <= 1.0)
                .min_by(|(_, a), (_, b)| a.total_cmp(b))
                .map(|(index, _)| index);
            let index = matched.unwrap_or(self.tracks.len());
            if matched.is_none() {
                self.tracks.push(Track {
                    id: self.next_id,
                    kind: site.kind,
                    place,
                    first_seq: frame.seq,
                    last_seen: self.frames,
                    closed: false,
                });
                taken.push(false);
                self.next_id += 1;
            }
            if let Some(taken) = taken.get_mut(index) {
                *taken = true;
            }
            let Some(track) = self.tracks.get_mut(index) else { continue };
            track.place = place;
            track.last_seen = self.frames;
            if track.closed {
                continue;
            }
            candidates.push(Candidate {
                id: track.id,
                kind: site.kind,
                px: site.px,
                frac: site.frac,
                nm: site.nm,
                score: site.score,
                p_value: site.p_value,
                reason: site.reason,
                first_seq: track.first_seq,
                seq: frame.seq,
                valid_until_ns,
                model: model.to_owned(),
            });
        }
        let oldest = self.frames.saturating_sub(self.settings.forget_after_frames);
        self.tracks.retain(|track| track.closed || track.last_seen >= oldest);
        candidates
    }

    /// What the controller made of a candidate. Rejected and finished sites are not offered again. Returns whether the
    /// id is known.
    pub fn acknowledge(&mut self, id: u64, verdict: Verdict) -> bool {
        let Some(track) = self.tracks.iter_mut().find(|track| track.id == id) else { return false };
        track.closed = matches!(verdict, Verdict::Rejected | Verdict::Done);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrostem_proto::{FractionalPosition, PixelPosition, StagePosition};

    fn site(kind: CandidateKind, y: f64, x: f64) -> Site {
        Site {
            kind,
            px: PixelPosition::default(),
            frac: FractionalPosition { y: 0.5, x: 0.5 },
            nm: StagePosition { x, y, rotation_rad: 0.0 },
            score: 1.0,
            p_value: f64::NAN,
            reason: String::new(),
            region: None,
            expression: None,
        }
    }

    fn scanned_at(seq: u64, center_nm: [f64; 2]) -> Frame {
        let mut frame = Frame::blank(32, 32, 0.0);
        frame.seq = seq;
        frame.scan.center_nm = center_nm;
        frame
    }

    #[test]
    fn a_site_keeps_its_id_when_the_scan_moves() {
        let mut tracker = Tracker::new(TrackerSettings::default());
        let ood = CandidateKind::Ood;
        let first = tracker.track(vec![site(ood, 2.0, 3.0)], &scanned_at(1, [0.0, 0.0]), "m", 0);
        // The scan was centred on the site, which drifted by 0.3 nm; a wall stands at the same place.
        let sites = vec![site(CandidateKind::DomainWall, 0.0, 0.0), site(ood, 0.0, 0.3)];
        let second = tracker.track(sites, &scanned_at(2, [2.0, 3.0]), "m", 0);
        assert_eq!(second[1].id, first[0].id);
        assert_eq!((second[1].first_seq, second[1].seq), (1, 2));
        assert_ne!(second[0].id, first[0].id);
        let elsewhere = tracker.track(vec![site(ood, 2.0, 0.0)], &scanned_at(3, [2.0, 3.0]), "m", 0);
        assert_ne!(elsewhere[0].id, first[0].id);
    }

    #[test]
    fn finished_sites_are_not_offered_again_and_old_ones_are_forgotten() {
        let settings = TrackerSettings { forget_after_frames: 2, ..TrackerSettings::default() };
        let mut tracker = Tracker::new(settings);
        let at = |y| vec![site(CandidateKind::Ood, y, 0.0)];
        let frame = scanned_at(1, [0.0, 0.0]);
        let (done, accepted) =
            (tracker.track(at(0.0), &frame, "m", 5)[0].id, tracker.track(at(9.0), &frame, "m", 5)[0].id);
        assert!(tracker.acknowledge(done, Verdict::Done) && tracker.acknowledge(accepted, Verdict::Accepted));
        assert!(!tracker.acknowledge(999, Verdict::Done));
        assert!(tracker.track(at(0.0), &frame, "m", 5).is_empty());
        assert_eq!(tracker.track(at(9.0), &frame, "m", 5)[0].id, accepted);
        for _ in 0..4 {
            tracker.track(Vec::new(), &frame, "m", 5);
        }
        assert_ne!(tracker.track(at(9.0), &frame, "m", 5)[0].id, accepted);
        assert!(tracker.track(at(0.0), &frame, "m", 5).is_empty());
    }
}
