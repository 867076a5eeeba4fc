//! A recorded session, played by the program over a real socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test or a bench that cannot go on says so"
)]

mod support;

use ferrostem::ingest::SourceSettings;
use ferrostem::ingest::validate::validate;
use ferrostem::pipeline::Daemon;
use ferrostem::session::compare::{Tolerances, compare};
use ferrostem::session::{RecordSettings, Recorder, SessionHeader};
use ferrostem_proto::{FrameMessage, FramesMessage, Limits, cbor};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use support::{FramesLane, PATIENCE, Subscriber, config, crystal, runtime, write_models};
use zeromq::{Socket, SocketRecv, SubSocket};

/// 2023-11-14, in ns.
const START_NS: u64 = 1_700_000_000_000_000_000;

/// `frames` frames of `side` px a side, `interval_ns` apart.
fn session(path: &Path, frames: u64, side: usize, interval_ns: u64) {
    let mut recorder = Recorder::create(path, &RecordSettings::default(), &SessionHeader::default()).unwrap();
    let pixels = crystal(side);
    for seq in 0..frames {
        let received_ns = START_NS + seq * interval_ns;
        let message = FrameMessage {
            acquisition: Some("recorded".to_owned()),
            pixel_size_pm: Some([15.0, 15.0]),
            t_start_ns: Some(received_ns - 1000),
            t_end_ns: Some(received_ns),
            ..FrameMessage::new(seq, pixels.clone())
        };
        recorder
            .frame(&validate(message, &SourceSettings::default(), "recorded", received_ns).unwrap())
            .unwrap();
    }
    recorder.finish().unwrap();
}

fn free_endpoint() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("tcp://{}", listener.local_addr().unwrap())
}

fn play(session: &Path, endpoint: &str, speed: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ferrostem"))
        .args(["replay", "--json", "--speed", speed, "--endpoint", endpoint])
        .arg(session)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn report(player: Child) -> serde_json::Value {
    let output = player.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Replays `session` into a lossless daemon of its own that records to `out`.
fn recorded_again(session: &Path, frames: u64, models: &Path, out: &Path) {
    let runtime = runtime();
    let unused = FramesLane::bind(&runtime);
    let endpoint = free_endpoint();
    let record = format!("record.path=\"{}\"", out.display());
    let source = format!("sources=[{{name=\"replay\",endpoint=\"{endpoint}\"}}]");
    let config = config(&unused, Some(models), &["mode=\"lossless\"", &record, &source]);
    let daemon = Daemon::start(&config).unwrap();
    runtime.block_on(async {
        let mut subscriber = Subscriber::connect(&daemon, &["result", "status"]).await;
        // The heartbeat shows that the subscription has arrived.
        subscriber.next().await;
        let player = play(session, &endpoint, "max");
        for seq in 0..frames {
            assert_eq!(subscriber.result().await.seq, seq);
        }
        assert_eq!(report(player)["frames_sent"], frames);
    });
    assert!(daemon.shutdown());
}

fn compared(a: &Path, b: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ferrostem"))
        .args(["compare", "--json"])
        .args([a, b])
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_session_replayed_twice_gives_the_same_results_to_the_bit() {
    const FRAMES: u64 = 4;
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    std::fs::create_dir(&models).unwrap();
    write_models(&models);
    let recording = folder.path().join("recording.h5");
    session(&recording, FRAMES, 112, 40_000_000);
    let again: [PathBuf; 2] = ["first.h5", "second.h5"].map(|name| folder.path().join(name));
    for out in &again {
        recorded_again(&recording, FRAMES, &models, out);
    }
    let found = compare(&again[0], &again[1], &Tolerances::default(), &mut |_, _| {}).unwrap();
    assert!(found.same, "{found:#?}");
    assert_eq!((found.frames.both, found.results.both), (FRAMES as usize, FRAMES as usize));
    assert!(found.quantities.iter().any(|quantity| quantity.name == "p_x" && quantity.values > 0));
    let (code, json) = compared(&again[0], &again[1]);
    assert_eq!(code, Some(0), "{json}");
    // The recording has the same frames and no results.
    let (code, json) = compared(&again[0], &recording);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["pixels_differ"]), (Some(1), &serde_json::json!([])));
    assert_eq!(compared(&again[0], &models).0, Some(2));
}

#[test]
fn recorded_intervals_arrive_as_they_were() {
    const FRAMES: u64 = 60;
    const INTERVAL_MS: f64 = 25.0;
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("recording.h5");
    session(&recording, FRAMES, 256, 25_000_000);
    let endpoint = free_endpoint();
    let player = play(&recording, &endpoint, "1");
    let arrived: Vec<Instant> = runtime().block_on(async {
        let started = Instant::now();
        let mut socket = loop {
            let mut socket = SubSocket::new();
            socket.subscribe("").await.unwrap();
            match socket.connect(&endpoint).await {
                Ok(()) => break socket,
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
            }
        };
        let mut arrived = Vec::new();
        while arrived.len() < FRAMES as usize {
            let message = tokio::time::timeout(PATIENCE, socket.recv()).await.expect("no frame").unwrap();
            let now = Instant::now();
            match cbor::decode_frames(message.get(0).unwrap(), &Limits::default()).unwrap() {
                FramesMessage::Frame(frame) => {
                    assert_eq!(frame.seq, arrived.len() as u64, "the first frame is not missed");
                    arrived.push(now);
                }
                FramesMessage::Begin(bracket) | FramesMessage::End(bracket) => {
                    assert_eq!(bracket.acquisition, "recorded");
                }
            }
        }
        arrived
    });
    let report = report(player);
    let mut errors_ms: Vec<f64> = arrived
        .windows(2)
        .map(|pair| ((pair[1] - pair[0]).as_secs_f64() * 1e3 - INTERVAL_MS).abs())
        .collect();
    errors_ms.sort_by(f64::total_cmp);
    let (p50, p99) = (errors_ms[errors_ms.len() / 2], errors_ms[errors_ms.len() * 99 / 100]);
    eprintln!("intervals off by {p50:.3} ms (median), {p99:.3} ms (99 %); handed over late: {report}");
    assert_eq!(report["lateness_us"]["frames"], FRAMES);
    // This side is an ordinary thread that a busy computer may keep waiting: the program's own figures say how punctual it was.
    assert!(p50 < 5.0, "intervals off by {errors_ms:?} ms");
    let total_ms = (arrived[arrived.len() - 1] - arrived[0]).as_secs_f64() * 1e3;
    assert!((total_ms - (FRAMES - 1) as f64 * INTERVAL_MS).abs() < 100.0, "{total_ms} ms in all");
}
