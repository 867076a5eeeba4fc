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

use CandidateKind::{Column, DomainWall, Expression, Ood, Vortex};

/// A field of view of 6.4 nm, without anything to measure drift by.
fn scanned_at(seq: u64, center_nm: [f64; 2]) -> Frame {
    let mut frame = Frame::blank(64, 64, 0.0);
    frame.pixels.fill(1.0);
    frame.seq = seq;
    frame.scan.center_nm = center_nm;
    frame
}

fn calibration() -> Calibration {
    Calibration { pixel_size_pm: [100.0; 2], source: CalibrationSource::Frame }
}

fn seen(tracker: &mut Tracker, sites: Vec<Site>, frame: &Frame) -> Vec<Candidate> {
    let calibration = calibration();
    tracker.track(sites, &Sighting { frame, calibration: &calibration, model: "m", now_ns: 5 })
}

fn tracker() -> Tracker {
    Tracker::new(TrackerSettings { forget_after_frames: 2, ..TrackerSettings::default() })
}

#[test]
fn a_site_keeps_its_id_when_the_scan_moves() {
    let mut tracker = tracker();
    let first = seen(&mut tracker, vec![site(Ood, 2.0, 2.1)], &scanned_at(1, [0.0, 0.0]));
    // The scan was centred on the site, which is found 0.3 nm off; a wall stands at the same place.
    let sites = vec![site(DomainWall, 0.0, 0.0), site(Ood, 0.0, 0.3)];
    let second = seen(&mut tracker, sites, &scanned_at(2, [2.0, 2.1]));
    assert_eq!(second[1].id, first[0].id);
    assert_eq!((second[1].first_seq, second[1].seq), (1, 2));
    assert_ne!(second[0].id, first[0].id);
    let elsewhere = seen(&mut tracker, vec![site(Ood, 2.0, 0.0)], &scanned_at(3, [2.0, 2.1]));
    assert_ne!(elsewhere[0].id, first[0].id);
}

#[test]
fn the_nearest_pairs_are_the_same_whatever_the_rank() {
    let mut tracker = tracker();
    let frame = scanned_at(1, [0.0, 0.0]);
    let first = seen(&mut tracker, vec![site(Ood, 0.0, 0.0), site(Ood, 0.0, 1.2)], &frame);
    // Both moved by 0.5 nm; the left one is now the nearer to where the right one was than to where it was itself, but for
    // the right one, which is nearer still.
    let second = seen(&mut tracker, vec![site(Ood, 0.0, 0.7), site(Ood, 0.0, 1.3)], &frame);
    assert_eq!([second[1].id, second[0].id], [first[1].id, first[0].id]);
}

#[test]
fn a_site_out_of_view_waits_and_one_in_view_that_is_gone_is_forgotten() {
    let mut tracker = tracker();
    let here = scanned_at(1, [0.0, 0.0]);
    let id = seen(&mut tracker, vec![site(Ood, 1.0, 1.0)], &here)[0].id;
    for seq in 2..40 {
        seen(&mut tracker, Vec::new(), &scanned_at(seq, [20.0, 0.0]));
    }
    // At the very border of the frame, where windows end before.
    for seq in 40..50 {
        seen(&mut tracker, Vec::new(), &scanned_at(seq, [-1.9, 1.0]));
    }
    assert_eq!(seen(&mut tracker, vec![site(Ood, 1.0, 1.0)], &here)[0].id, id);
    for _ in 0..3 {
        seen(&mut tracker, Vec::new(), &here);
    }
    assert_ne!(seen(&mut tracker, vec![site(Ood, 1.0, 1.0)], &here)[0].id, id);
}

#[test]
fn what_was_rejected_is_not_offered_again_by_whatever_name() {
    let mut tracker = tracker();
    let frame = scanned_at(1, [0.0, 0.0]);
    let first =
        seen(&mut tracker, vec![site(Ood, 0.0, 0.0), site(Ood, 0.0, 2.2), site(Vortex, 2.0, 0.0)], &frame);
    assert!(tracker.acknowledge(first[0].id, Verdict::Done));
    assert!(tracker.acknowledge(first[1].id, Verdict::Accepted));
    assert!(!tracker.acknowledge(999, Verdict::Done));
    for _ in 0..10 {
        seen(&mut tracker, Vec::new(), &frame);
    }
    // Seen again from elsewhere, a window farther on, and as a column: what is done stays so.
    let moved = scanned_at(9, [1.0, 0.0]);
    let again =
        vec![site(Ood, -1.0, 0.0), site(Ood, -0.2, 0.6), site(Column, -1.0, 0.2), site(Ood, -1.0, 2.2)];
    let offered = seen(&mut tracker, again, &moved);
    assert_eq!(offered.len(), 1);
    assert_ne!(offered[0].id, first[1].id, "forgotten");
    // The rejection of a candidate that was forgotten meanwhile counts.
    assert!(tracker.acknowledge(first[2].id, Verdict::Rejected));
    assert!(seen(&mut tracker, vec![site(Vortex, 1.0, 0.0)], &moved).is_empty());
    assert_eq!(seen(&mut tracker, vec![site(Vortex, 1.0, 1.4)], &moved).len(), 1);
    // Accepted after all: it is offered.
    assert!(tracker.acknowledge(first[0].id, Verdict::Accepted));
    assert_eq!(seen(&mut tracker, vec![site(Ood, -1.0, 0.0)], &moved)[0].id, first[0].id);
}

#[test]
fn a_candidate_that_expired_leaves_its_site_as_it_was() {
    let frame = scanned_at(1, [0.0, 0.0]);
    for verdict in [Verdict::Rejected, Verdict::Done] {
        let mut tracker = tracker();
        let id = seen(&mut tracker, vec![site(Ood, 0.0, 0.0)], &frame)[0].id;
        // An open site stays open under its id, a closed one closed.
        assert!(tracker.acknowledge(id, Verdict::Expired));
        assert_eq!(seen(&mut tracker, vec![site(Ood, 0.0, 0.0)], &frame)[0].id, id);
        assert!(tracker.acknowledge(id, verdict) && tracker.acknowledge(id, Verdict::Expired));
        assert!(seen(&mut tracker, vec![site(Ood, 0.0, 0.0)], &frame).is_empty(), "{verdict:?}");
    }
}

#[test]
fn expressions_are_told_apart_by_name() {
    let mut tracker = tracker();
    let named = |name: &str| Site { expression: Some(name.to_owned()), ..site(Expression, 0.0, 0.0) };
    let frame = scanned_at(1, [0.0, 0.0]);
    let ids = |candidates: Vec<Candidate>| candidates.iter().map(|c| c.id).collect::<Vec<_>>();
    let first = ids(seen(&mut tracker, vec![named("long"), named("short")], &frame));
    assert_ne!(first[0], first[1]);
    let second = ids(seen(&mut tracker, vec![named("short"), named("long")], &frame));
    assert_eq!(second, [first[1], first[0]]);
}

#[test]
fn memory_is_bounded() {
    // Drift is not what this is about, and takes its time.
    let mut tracker = Tracker::new(TrackerSettings { max_drift_nm: 0.0, ..TrackerSettings::default() });
    let last = 2 * MAX_REMEMBERED as u64;
    for seq in 0..last {
        let frame = scanned_at(seq, [10.0 * seq as f64, 0.0]);
        let id = seen(&mut tracker, vec![site(Ood, 0.0, 0.0)], &frame)[0].id;
        assert!(tracker.acknowledge(id, if seq % 2 == 0 { Verdict::Done } else { Verdict::Accepted }));
    }
    assert!(tracker.tracks.len() <= 2 * MAX_REMEMBERED);
    assert!(tracker.acknowledge(last, Verdict::Done) && tracker.acknowledge(last - 1, Verdict::Done));
}
