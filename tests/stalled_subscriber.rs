//! A subscriber that never reads delays nobody and costs no memory. In a program of its own: what it measures is this
//! process's memory and time, which other tests would take too.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test or a bench that cannot go on says so"
)]

mod support;

use ferrostem::pipeline::Daemon;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use support::{FramesLane, Subscriber, config, crystal, runtime};

/// Resident memory of this process, bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Subscribes to everything by hand and then never reads.
fn stalled_subscriber(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.addresses().results).unwrap();
    // ZMTP 3.0 greeting: signature, version, mechanism NULL, as a client.
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    greeting.extend(b"NULL");
    greeting.resize(64, 0);
    stream.write_all(&greeting).unwrap();
    let mut answer = [0; 64];
    stream.read_exact(&mut answer).unwrap();
    let mut ready = vec![5];
    ready.extend(b"READY\x0bSocket-Type\x00\x00\x00\x03SUB");
    stream.write_all(&[4, u8::try_from(ready.len()).unwrap()]).unwrap();
    stream.write_all(&ready).unwrap();
    stream.write_all(&[0, 1, 1]).unwrap();
    stream
}

#[test]
fn a_stalled_subscriber_delays_nobody_and_costs_no_memory() {
    const FRAMES: u64 = 3000;
    let runtime = runtime();
    let frames = FramesLane::bind(&runtime);
    let daemon = Daemon::start(&config(&frames, None, &[])).unwrap();
    let pixels = crystal(64);
    // One frame after the other, so that a latency is that of a frame and not of a queue.
    let run = |from: u64| {
        runtime.block_on(async {
            let mut subscriber = Subscriber::connect(&daemon, &["result", "status"]).await;
            subscriber.next().await;
            frames.wait_for_subscriber();
            let mut latencies = Vec::new();
            for seq in from..from + FRAMES {
                let sent = std::time::Instant::now();
                frames.send(seq, &pixels);
                assert_eq!(subscriber.result().await.seq, seq);
                latencies.push(sent.elapsed().as_micros());
            }
            latencies.sort_unstable();
            (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100])
        })
    };
    let (p50_before, p99_before) = run(0);
    let stalled = stalled_subscriber(&daemon);
    let memory_before = resident_bytes();
    let (p50, p99) = run(FRAMES);
    let grown = resident_bytes().saturating_sub(memory_before);
    // `latest` has no subscriber, so all that was dropped, the stalled one did not get.
    let dropped = daemon.telemetry().snapshot().publish_dropped;
    drop(stalled);
    assert!(dropped > FRAMES / 4, "the stalled subscriber was not stalled: {dropped} dropped");
    assert!(grown < 16 << 20, "{grown} bytes more");
    assert!(p50 <= 2 * p50_before + 500, "median {p50_before} µs before, {p50} µs with a stalled subscriber");
    assert!(p99 <= 3 * p99_before + 20_000, "p99 {p99_before} µs before, {p99} µs with a stalled subscriber");
    assert!(daemon.shutdown());
}
