//! The recording daemon as a process of its own: killed at any moment, out of disk, its file taken away.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test or a bench that cannot go on says so"
)]

mod support;

use ferrostem::session::{FrameReader, OpenOptions, ResultReader, open};
use ferrostem_proto::PixelArray;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use support::{FramesLane, PATIENCE, runtime};

/// `ferrostem record` without networks, behind `sh` with `limits` in force.
struct Daemon {
    child: Child,
    http: u16,
}

impl Daemon {
    fn record(frames: &FramesLane, session: &Path, limits: &str, more: &[&str]) -> Self {
        let http = free_port();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limits} exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_ferrostem"));
        command.arg("record").arg("--out").arg(session);
        let sets = [
            format!("sources=[{{name=\"test\",endpoint=\"{}\"}}]", frames.endpoint()),
            format!("lanes.http=\"127.0.0.1:{http}\""),
            "device=\"cpu\"".to_owned(),
            "mode=\"lossless\"".to_owned(),
            "record.settings.flush_interval_ms=20".to_owned(),
            "runtime.status_interval_ms=100".to_owned(),
        ];
        let sets = sets.into_iter().chain(["dcnn", "fcnn"].map(|model| format!("models.{model}=\"none\"")));
        let lanes =
            ["results", "latest", "control"].map(|lane| format!("lanes.{lane}=\"tcp://127.0.0.1:0\""));
        for set in sets.chain(lanes) {
            command.arg("--set").arg(set);
        }
        command.args(more).env("FERROSTEM_LOG", "error").stdout(Stdio::null()).stderr(Stdio::piped());
        Self { child: command.spawn().unwrap(), http }
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn processed(&self) -> u64 {
        let metrics = self.get("/metrics").unwrap_or_default();
        let value = metrics.lines().find_map(|line| line.strip_prefix("ferrostem_frames_processed_total "));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// SIGKILL, and what was logged until then.
    fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// Frame `seq`; noise that deflate cannot shrink much. Every tenth frame changes the height, with which another measurement begins.
fn pixels(seq: u64) -> PixelArray {
    let mut state = seq + 1;
    let rows = if (seq / 10).is_multiple_of(2) { 64 } else { 48 };
    let values: Vec<f32> = (0..64 * rows)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32
        })
        .collect();
    PixelArray::from_f32([rows, 64], &values).unwrap()
}

/// Sends frames from `*next` on, as fast as `paced_by` says they are processed, until `stop`.
fn send(frames: &FramesLane, next: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        frames.send(next.load(Ordering::Relaxed), &pixels(next.load(Ordering::Relaxed)));
        next.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
}

fn reader(session: &Path) -> Option<Box<dyn FrameReader>> {
    open(session, &OpenOptions::default()).ok()
}

#[test]
fn whenever_it_is_killed_the_session_holds_what_a_reader_saw_and_goes_on() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session.h5");
    let frames = FramesLane::bind(&runtime);
    let next = AtomicU64::new(0);
    let mut held = 0;
    for round in 0..6_usize {
        let append: &[&str] = if round == 0 { &[] } else { &["--append"] };
        let daemon = Daemon::record(&frames, &session, "", append);
        let stop = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            scope.spawn(|| {
                frames.wait_for_subscriber();
                send(&frames, &next, &stop);
            });
            // Reads along, while the file is written.
            let mut seen = [0, 0];
            until("the session grows", || {
                let results = ResultReader::open(&session).map_or(0, |results| results.len());
                seen = [reader(&session).map_or(0, |reader| reader.len()), seen[1].max(results)];
                seen[0] > held + 15 + 9 * round && seen[1] > held
            });
            let log = daemon.kill();
            assert!(log.is_empty(), "{log}");
            stop.store(true, Ordering::Relaxed);
            seen
        });
        let mut reader = open(&session, &OpenOptions::default()).unwrap();
        let [frames_seen, results_seen] = seen;
        assert!(
            reader.len() >= frames_seen,
            "round {round}: {} frames left of {frames_seen} seen",
            reader.len()
        );
        let mut last = None;
        for index in held..reader.len() {
            let frame = reader.frame(index).unwrap().message;
            assert!(last.is_none_or(|last| frame.seq == last + 1), "{} after {last:?}", frame.seq);
            assert_eq!(frame.data, pixels(frame.seq));
            last = Some(frame.seq);
        }
        held = reader.len();
        let results = ResultReader::open(&session).unwrap();
        assert!(
            results.len() >= results_seen,
            "round {round}: {} results left of {results_seen} seen",
            results.len()
        );
        (0..results.len()).for_each(|index| drop(results.result(index).unwrap()));
    }
}

/// What a full disk, and a file that is taken away, look like to those who watch.
fn recording_fails(limits: &str, harm: impl Fn(&Path)) -> (tempfile::TempDir, String) {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session.h5");
    let frames = FramesLane::bind(&runtime);
    let daemon = Daemon::record(&frames, &session, limits, &[]);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let health = std::thread::scope(|scope| {
        scope.spawn(|| {
            frames.wait_for_subscriber();
            send(&frames, &next, &stop);
        });
        until("frames are recorded", || reader(&session).is_some_and(|reader| reader.len() > 5));
        harm(&session);
        let mut health = String::new();
        until("the health page says so", || {
            health = daemon.get("/healthz").unwrap_or_default();
            health.contains("recording to")
        });
        let before = daemon.processed();
        until("frames are still processed", || daemon.processed() > before + 20);
        stop.store(true, Ordering::Relaxed);
        health
    });
    let metrics = daemon.get("/metrics").unwrap();
    let dropped = metrics.lines().find(|line| line.starts_with("ferrostem_record_frames_dropped_total "));
    assert!(dropped.is_some_and(|line| !line.ends_with(" 0")), "{dropped:?}");
    assert!(health.starts_with("HTTP/1.1 503"), "{health}");
    let log = daemon.kill();
    assert!(log.contains("recording to"), "{log}");
    (folder, health)
}

#[test]
fn a_full_disk_is_loud_and_leaves_what_was_written() {
    // Blocks of 512 bytes; beyond them writing fails as on a full disk.
    let (folder, health) = recording_fails("trap '' XFSZ; ulimit -f 1000;", |_| ());
    assert!(health.contains("has stopped after"), "{health}");
    let mut reader = open(&folder.path().join("session.h5"), &OpenOptions::default()).unwrap();
    assert!(reader.len() > 5);
    for index in 0..reader.len() {
        let frame = reader.frame(index).unwrap().message;
        assert_eq!(frame.data, pixels(frame.seq));
    }
}

#[test]
fn a_file_that_is_taken_away_is_loud() {
    let (_folder, health) = recording_fails("", |session| std::fs::remove_file(session).unwrap());
    assert!(health.contains("removed"), "{health}");
}
