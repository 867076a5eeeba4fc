//! The daemon over real sockets: a frame goes in, everything that is promised comes out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test or a bench that cannot go on says so"
)]

mod support;

use ferrostem::pipeline::Daemon;
use ferrostem::session::ResultReader;
use ferrostem_proto::ResultsMessage;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use support::{FramesLane, Subscriber, ask, config, crystal, runtime, write_models};

fn http(daemon: &Daemon, path: &str) -> String {
    let mut stream = TcpStream::connect(daemon.addresses().http).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_frame_becomes_a_result_candidates_status_and_a_snapshot() {
    let runtime = runtime();
    let models = tempfile::tempdir().unwrap();
    write_models(models.path());
    let frames = FramesLane::bind(&runtime);
    let daemon = Daemon::start(&config(&frames, Some(models.path()), &[])).unwrap();
    runtime.block_on(async {
        let early = ask(&daemon, json!({"id": 1, "cmd": "snapshot"})).await;
        assert!(early.outcome.is_err(), "nothing was processed yet");
        let mut subscriber = Subscriber::connect(&daemon, &["result", "candidates", "status"]).await;
        // The heartbeat shows that the subscription has arrived.
        assert!(matches!(subscriber.next().await, (topic, ResultsMessage::Status(_)) if topic == "status"));
        frames.wait_for_subscriber();
        frames.send_bytes(b"\x00garbage");
        frames.send(7, &crystal(160));
        let (mut result, mut candidates) = (None, None);
        while result.is_none() || candidates.is_none() {
            match subscriber.next().await {
                (topic, ResultsMessage::Result(found)) => {
                    assert_eq!(topic, "result");
                    result = Some(found);
                }
                (topic, ResultsMessage::Candidates(found)) => {
                    assert_eq!(topic, "candidates");
                    candidates = Some(found);
                }
                (_, ResultsMessage::Status(_)) => {}
            }
        }
        let (result, candidates) = (result.unwrap(), candidates.unwrap());
        assert_eq!((result.seq, result.acquisition.as_str()), (7, "test"));
        // (160 - 80) / 8 + 1 windows a side, the first centred on pixel 39.5.
        assert_eq!((result.grid.rows, result.grid.cols, result.grid.row0), (11, 11, 39.5));
        assert!(result.p_x.values().iter().all(|p| p.is_finite()));
        // As text, since a missing column has no p-value and NaN is unlike itself.
        assert_eq!(format!("{:?}", result.candidates), format!("{:?}", candidates.candidates));
        assert_eq!(result.counters.rejected, 1);
        assert_eq!(result.counters.processed, 1);
        assert!(result.model.dcnn.is_some() && result.model.fcnn.is_some());
        assert!(result.timing.t_published_ns > result.timing.t_received_ns);

        let snapshot = ask(&daemon, json!({"id": "late", "cmd": "snapshot"})).await;
        assert_eq!(snapshot.id, json!("late"));
        assert_eq!(snapshot.outcome.unwrap()["seq"], 7);
        let configured =
            ask(&daemon, json!({"id": 2, "cmd": "configure", "args": {"set": {"flags.ood.alpha": 0.01}}}))
                .await;
        assert!(configured.outcome.is_ok(), "{configured:?}");
        let refused =
            ask(&daemon, json!({"id": 3, "cmd": "configure", "args": {"set": {"mode": "lossless"}}})).await;
        assert!(refused.outcome.is_err());
        let unknown = ask(
            &daemon,
            json!({"id": 4, "cmd": "ack", "args": {"candidate_id": 999_999, "verdict": "done"}}),
        )
        .await;
        assert!(unknown.outcome.is_err());
    });
    assert!(http(&daemon, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(http(&daemon, "/healthz").starts_with("HTTP/1.1 200"));
    let metrics = http(&daemon, "/metrics");
    assert!(metrics.contains("ferrostem_frames_processed_total 1"), "{metrics}");
    assert!(daemon.shutdown());
}

#[test]
fn lossless_mode_processes_every_frame_and_records_it_through_a_shutdown() {
    let runtime = runtime();
    let models = tempfile::tempdir().unwrap();
    write_models(models.path());
    let frames = FramesLane::bind(&runtime);
    let session = models.path().join("session.h5");
    let record = format!("record.path=\"{}\"", session.display());
    let config =
        config(&frames, Some(models.path()), &["mode=\"lossless\"", &record, "runtime.queue_frames=2"]);
    let daemon = Daemon::start(&config).unwrap();
    let pixels = crystal(96);
    runtime.block_on(async {
        let mut subscriber = Subscriber::connect(&daemon, &["result", "status"]).await;
        subscriber.next().await;
        frames.wait_for_subscriber();
        for seq in 0..12 {
            frames.send(seq, &pixels);
        }
        let mut first: Option<Vec<f32>> = None;
        for seq in 0..12 {
            let result = subscriber.result().await;
            assert_eq!(result.seq, seq, "in order, none left out");
            // The same pixels give the same field, bit for bit.
            let p_x = result.p_x.values().to_vec();
            assert_eq!(*first.get_or_insert_with(|| p_x.clone()), p_x);
        }
    });
    assert_eq!(daemon.telemetry().snapshot().superseded, 0);
    assert!(daemon.shutdown());
    let reader = ResultReader::open(&session).unwrap();
    assert_eq!(reader.len(), 12);
}

#[test]
fn ten_times_too_many_frames_leave_the_newest_result_fresh() {
    let runtime = runtime();
    let models = tempfile::tempdir().unwrap();
    write_models(models.path());
    let frames = FramesLane::bind(&runtime);
    let daemon = Daemon::start(&config(&frames, Some(models.path()), &[])).unwrap();
    let pixels = crystal(128);
    runtime.block_on(async {
        let mut subscriber = Subscriber::connect(&daemon, &["result", "status"]).await;
        subscriber.next().await;
        frames.wait_for_subscriber();
        let service = |result: &ferrostem_proto::ResultMessage| -> u64 {
            result
                .timing
                .stages_us
                .iter()
                .filter(|(stage, _)| !stage.starts_with("wait"))
                .map(|(_, us)| us)
                .sum()
        };
        frames.send(0, &pixels);
        let alone = service(&subscriber.result().await);
        let interval = Duration::from_micros(alone / 10);
        let sender = tokio::task::spawn_blocking({
            let sent = 100;
            move || {
                for seq in 1..=sent {
                    frames.send(seq, &pixels);
                    std::thread::sleep(interval);
                }
                (sent, frames)
            }
        });
        let (mut longest_service, mut latencies, mut last) = (alone, Vec::new(), 0);
        while last < 100 {
            let result = subscriber.result().await;
            assert!(result.seq > last, "results never go back");
            last = result.seq;
            longest_service = longest_service.max(service(&result));
            latencies.push((result.timing.t_published_ns - result.timing.t_received_ns) / 1000);
        }
        let (sent, _frames) = sender.await.unwrap();
        let counters = daemon.telemetry().snapshot();
        assert!(counters.superseded > sent / 2, "{counters:?}");
        let oldest = latencies.iter().max().copied().unwrap();
        assert!(oldest <= 2 * longest_service, "{oldest} µs for a service time of {longest_service} µs");
    });
    assert!(daemon.shutdown());
}
