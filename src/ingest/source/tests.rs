//! Over real sockets on ports that the system gives.

use super::*;
use ferrostem_proto::{FrameMessage, FramesMessage, PixelArray, bincode, cbor};
use std::sync::mpsc;
use tokio::runtime::Runtime;
use zeromq::{PubSocket, PushSocket, SocketSend, ZmqMessage};

/// Nothing here takes long; a test that fails fails after this.
const PATIENCE: Duration = Duration::from_secs(10);

struct Running {
    frames: mpsc::Receiver<Frame>,
    brackets: mpsc::Receiver<(BracketEdge, Bracket)>,
    counters: Arc<IngestCounters>,
    shutdown: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

struct Sink {
    frames: mpsc::SyncSender<Frame>,
    brackets: mpsc::SyncSender<(BracketEdge, Bracket)>,
}

impl FrameSink for Sink {
    fn frame(&mut self, frame: Frame) {
        // The receiver is dropped when a test ends.
        let _ = self.frames.send(frame);
    }

    fn bracket(&mut self, source: &str, edge: BracketEdge, bracket: Bracket) {
        assert_eq!(source, "test");
        let _ = self.brackets.send((edge, bracket));
    }
}

fn start(endpoint: &str, pattern: Pattern, capacity: usize) -> Running {
    let (to_frames, frames) = mpsc::sync_channel(capacity);
    let (to_brackets, brackets) = mpsc::sync_channel(100);
    let counters = Arc::new(IngestCounters::default());
    let (shutdown, stop) = watch::channel(false);
    let settings = SourceSettings {
        name: "test".to_owned(),
        endpoint: endpoint.to_owned(),
        pattern,
        ..SourceSettings::default()
    };
    settings.validate("source").unwrap();
    let sink = Box::new(Sink { frames: to_frames, brackets: to_brackets });
    let thread = spawn_source(settings, sink, Arc::clone(&counters), stop).unwrap();
    Running { frames, brackets, counters, shutdown, thread }
}

impl Running {
    fn stop(self) -> Duration {
        let asked = Instant::now();
        self.shutdown.send(true).unwrap();
        self.thread.join().unwrap();
        asked.elapsed()
    }

    fn wait_until(&self, what: &str, reached: impl Fn(&IngestCounters) -> bool) {
        let begun = Instant::now();
        while !reached(&self.counters) {
            assert!(begun.elapsed() < PATIENCE, "never {what}: {:?}", self.counters.totals());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn frame(seq: u64) -> FramesMessage {
    let values: Vec<f32> = (0..32 * 32).map(|index| index as f32 + seq as f32).collect();
    FramesMessage::Frame(Box::new(FrameMessage::new(seq, PixelArray::from_f32([32, 32], &values).unwrap())))
}

fn native(seq: u64) -> ZmqMessage {
    cbor::encode_frames(&frame(seq)).unwrap().into()
}

fn multipart(parts: &[&[u8]]) -> ZmqMessage {
    let parts: Vec<Bytes> = parts.iter().map(|part| Bytes::copy_from_slice(part)).collect();
    parts.try_into().unwrap()
}

/// Sends frames numbered from 0 until one has come out of the other end: a PUB socket drops what nobody has subscribed to yet.
async fn send_until_heard(publisher: &mut PubSocket, running: &Running) -> Frame {
    let begun = Instant::now();
    for seq in 0.. {
        publisher.send(native(seq)).await.unwrap();
        match running.frames.try_recv() {
            Ok(frame) => return frame,
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
        assert!(begun.elapsed() < PATIENCE, "nothing heard: {:?}", running.counters.last_error());
    }
    unreachable!("the numbers do not run out");
}

#[test]
fn a_publisher_that_restarts_is_found_again() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut publisher = PubSocket::new();
        let endpoint = publisher.bind("tcp://127.0.0.1:0").await.unwrap().to_string();
        let running = start(&endpoint, Pattern::Sub, 100_000);
        let first = send_until_heard(&mut publisher, &running).await;
        assert_eq!((first.source.as_str(), first.pixels[[0, 1]]), ("test", first.seq as f32 + 1.0));
        // A gap that no frame lost before could make: this one has come.
        publisher.send(native(100_000)).await.unwrap();
        running.wait_until("past frame 100000", |counters| counters.totals().gaps > 90_000);

        for restarts in 1..=2 {
            publisher.close().await;
            running.wait_until("disconnected", |counters| counters.totals().connections_lost == restarts);
            assert!(!running.counters.totals().connected && running.counters.last_error().is_some());
            while running.frames.try_recv().is_ok() {}
            publisher = PubSocket::new();
            publisher.bind(&endpoint).await.unwrap();
            let back = Instant::now();
            send_until_heard(&mut publisher, &running).await;
            assert!(back.elapsed() < Duration::from_secs(2), "reconnected after {:?}", back.elapsed());
            publisher.send(native(100_000)).await.unwrap();
            let gaps = 90_000 * (restarts + 1);
            running.wait_until("past frame 100000", |counters| counters.totals().gaps > gaps);
        }
        let totals = running.counters.totals();
        assert_eq!((totals.restarts, totals.rejected, totals.connected), (2, 0, true));
        assert_eq!(running.counters.last_error(), None);
        assert!(running.stop() < Duration::from_secs(1));
    });
}

#[test]
fn a_pusher_that_restarts_is_found_again_and_nothing_is_lost() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut pusher = PushSocket::new();
        let mut accepted = pusher.monitor();
        let endpoint = pusher.bind("tcp://127.0.0.1:0").await.unwrap().to_string();
        // A small sink: most of the frames wait in the sockets until they are taken.
        let running = start(&endpoint, Pattern::Pull, 1);
        for restart in 0..2 {
            if restart > 0 {
                pusher.close().await;
                running.wait_until("disconnected", |counters| counters.totals().connections_lost == restart);
                pusher = PushSocket::new();
                accepted = pusher.monitor();
                pusher.bind(&endpoint).await.unwrap();
            }
            while !matches!(accepted.recv().await.unwrap(), SocketEvent::Accepted(..)) {}
            for seq in 0..50 {
                pusher.send(native(seq)).await.unwrap();
            }
            for seq in 0..50 {
                assert_eq!(running.frames.recv_timeout(PATIENCE).unwrap().seq, seq);
            }
        }
        let totals = running.counters.totals();
        assert_eq!((totals.received, totals.gaps, totals.repeats, totals.restarts), (100, 0, 0, 1));
        running.stop();
    });
}

#[test]
fn every_encoding_is_taken_and_garbage_is_counted_and_survived() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut pusher = PushSocket::new();
        let mut accepted = pusher.monitor();
        let endpoint = pusher.bind("tcp://127.0.0.1:0").await.unwrap().to_string();
        let running = start(&endpoint, Pattern::Pull, 100);
        while !matches!(accepted.recv().await.unwrap(), SocketEvent::Accepted(..)) {}

        let garbage: [&[&[u8]]; 7] = [
            &[b""],
            &[b"\0"],
            &[b"", b"", b"", b""],
            &[b"\xbf\xbf\xbf\xbf"],
            &[b"\x89FSB\x01\xff\xff\xff"],
            &[b"{\"dtype\":\"uint8\",\"shape\":[1000000,1000000]}", b"xx"],
            &[b"GET / HTTP/1.1\r\n"],
        ];
        let begin = FramesMessage::Begin(Bracket { acquisition: "BFO".to_owned(), ..Bracket::default() });
        let end = FramesMessage::End(Bracket { acquisition: "BFO".to_owned(), ..Bracket::default() });
        let cbor = cbor::encode_frames(&frame(0)).unwrap();
        let bincode = bincode::encode_frames(&frame(1)).unwrap();
        let header: &[u8] = br#"{"dtype": ">u2", "shape": [32, 32], "pixel_size_pm": 15}"#;
        let pixels: Vec<u8> = (0..1024u16).flat_map(u16::to_be_bytes).collect();
        let good = [
            multipart(&[&cbor::encode_frames(&begin).unwrap()]),
            multipart(&[b"topic", &cbor]),
            multipart(&[&bincode]),
            multipart(&[header, &pixels]),
            multipart(&[b"topic", header, &pixels]),
            multipart(&[&cbor::encode_frames(&end).unwrap()]),
        ];
        for (index, message) in good.into_iter().enumerate() {
            pusher.send(multipart(garbage[index])).await.unwrap();
            pusher.send(message).await.unwrap();
        }
        pusher.send(multipart(garbage[6])).await.unwrap();

        let frames: Vec<Frame> = (0..4).map(|_| running.frames.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(frames.iter().map(|frame| frame.seq).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(frames.iter().all(|frame| frame.acquisition == "BFO"));
        assert_eq!(frames[2].pixels[[1, 0]], 32.0);
        assert_eq!(frames[3].scan.pixel_size_pm, Some([15.0, 15.0]));
        running.wait_until("all rejected", |counters| counters.totals().rejected == 7);
        let edges: Vec<BracketEdge> = running.brackets.try_iter().map(|(edge, _)| edge).collect();
        assert_eq!(edges, [BracketEdge::Begin, BracketEdge::End]);
        assert!(running.counters.last_error().is_some());
        assert_eq!(running.counters.totals().received, 4);
        running.stop();
    });
}

#[test]
fn a_source_without_a_publisher_stops_at_once() {
    // A port that was free a moment ago, and one whose owner accepts but never greets.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (address, pattern) in [(closed, Pattern::Sub), (mute.local_addr().unwrap(), Pattern::Pull)] {
        let running = start(&format!("tcp://{address}"), pattern, 1);
        running.wait_until("told why", |counters| counters.last_error().is_some());
        assert!(!running.counters.totals().connected);
        assert!(running.stop() < Duration::from_millis(500));
    }
    let running = start(&format!("tcp://{closed}"), Pattern::Sub, 1);
    drop(running.shutdown);
    running.thread.join().unwrap();
}
