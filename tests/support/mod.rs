//! What whole-program tests share: a frames lane, a collector of results, and models without training.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test or a bench that cannot go on says so"
)]

use bytes::Bytes;
use ferrostem::config::Config;
use ferrostem::networks::{Architecture, DcnnConfig, FcnnConfig, HeadKind, Padding, write_untrained};
use ferrostem::pipeline::Daemon;
use ferrostem::publish::{LaneOptions, PubLane, Publisher, QueueCapacity};
use ferrostem::simulate::{Scene, render};
use ferrostem::telemetry::LaneMetrics;
use ferrostem_proto::control::ControlReply;
use ferrostem_proto::{FrameMessage, FramesMessage, Limits, PixelArray, ResultMessage, ResultsMessage, cbor};
use rand::SeedableRng;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use zeromq::{ReqSocket, Socket, SocketRecv, SocketSend, SubSocket, ZmqMessage};

/// Nothing here may take longer.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A microscope's PUB socket.
pub struct FramesLane {
    lane: PubLane,
    publisher: Publisher,
}

impl FramesLane {
    pub fn bind(runtime: &Runtime) -> Self {
        let _inside = runtime.enter();
        let options = LaneOptions {
            name: "frames",
            address: "127.0.0.1:0".parse().unwrap(),
            capacity: QueueCapacity { messages: 100_000, bytes: 1 << 30 },
            max_connections: 4,
        };
        let lane = PubLane::bind(options, LaneMetrics::default()).unwrap();
        let publisher = lane.publisher();
        Self { lane, publisher }
    }

    pub fn endpoint(&self) -> String {
        format!("tcp://{}", self.lane.address())
    }

    pub fn wait_for_subscriber(&self) {
        let started = Instant::now();
        while self.publisher.subscribers() == 0 {
            assert!(started.elapsed() < PATIENCE, "nobody subscribed to the frames");
            std::thread::yield_now();
        }
    }

    pub fn send(&self, seq: u64, pixels: &PixelArray) {
        let frame = FrameMessage {
            acquisition: Some("test".to_owned()),
            pixel_size_pm: Some([15.0, 15.0]),
            ..FrameMessage::new(seq, pixels.clone())
        };
        self.publisher.publish_single(cbor::encode_frames(&FramesMessage::Frame(Box::new(frame))).unwrap());
    }

    /// A message that is no frame.
    pub fn send_bytes(&self, bytes: &'static [u8]) {
        self.publisher.publish_single(Bytes::from_static(bytes));
    }
}

/// A frame of the built-in scene, `side` px a side.
pub fn crystal(side: usize) -> PixelArray {
    let mut scene = Scene::built_in("bifeo3").unwrap();
    scene.microscope.shape = [side, side];
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let frame = render(&scene.specimen, &scene.microscope, &mut rng).unwrap();
    PixelArray::from_f32([side, side], &frame.pixels.iter().copied().collect::<Vec<f32>>()).unwrap()
}

/// Untrained networks of the shipped shapes, in `folder`.
pub fn write_models(folder: &Path) {
    let dcnn = DcnnConfig { padding: Padding::Valid, head: HeadKind::Linear, window_px: 80, outputs: 7 };
    write_untrained(&folder.join("dcnn"), Architecture::Dcnn(dcnn), 1).unwrap();
    let fcnn = FcnnConfig { filters: 16, classes: 3 };
    write_untrained(&folder.join("fcnn"), Architecture::Fcnn(fcnn), 2).unwrap();
}

/// A config with free ports, the CPU and one source; `models` is a folder of [`write_models`], or none are loaded.
pub fn config(frames: &FramesLane, models: Option<&Path>, sets: &[&str]) -> Config {
    let model = |name: &str| models.map_or_else(|| "none".to_owned(), |m| m.join(name).display().to_string());
    let mut all = vec![
        "device=\"cpu\"".to_owned(),
        format!("models.dcnn=\"{}\"", model("dcnn")),
        format!("models.fcnn=\"{}\"", model("fcnn")),
        format!("sources=[{{name=\"test\",endpoint=\"{}\"}}]", frames.endpoint()),
        "lanes.http=\"127.0.0.1:0\"".to_owned(),
        "runtime.warm_up_shape=[96,96]".to_owned(),
        "runtime.status_interval_ms=100".to_owned(),
        "runtime.drain_ms=60000".to_owned(),
    ];
    all.extend(["results", "latest", "control"].map(|lane| format!("lanes.{lane}=\"tcp://127.0.0.1:0\"")));
    all.extend(sets.iter().map(|set| (*set).to_owned()));
    Config::load(None, std::iter::empty(), &all).unwrap()
}

/// A subscriber of the results lane.
pub struct Subscriber(SubSocket);

impl Subscriber {
    pub async fn connect(daemon: &Daemon, topics: &[&str]) -> Self {
        let mut socket = SubSocket::new();
        socket.connect(&format!("tcp://{}", daemon.addresses().results)).await.unwrap();
        for topic in topics {
            socket.subscribe(topic).await.unwrap();
        }
        Self(socket)
    }

    /// The next message with its topic.
    pub async fn next(&mut self) -> (String, ResultsMessage) {
        let message = tokio::time::timeout(PATIENCE, self.0.recv()).await.expect("no message").unwrap();
        let topic = String::from_utf8(message.get(0).unwrap().to_vec()).unwrap();
        let decoded = cbor::decode_results(message.get(1).unwrap(), &Limits::default()).unwrap();
        (topic, decoded)
    }

    pub async fn result(&mut self) -> ResultMessage {
        loop {
            if let (_, ResultsMessage::Result(result)) = self.next().await {
                return *result;
            }
        }
    }
}

/// One request on the control lane.
pub async fn ask(daemon: &Daemon, request: serde_json::Value) -> ControlReply {
    let mut socket = ReqSocket::new();
    socket.connect(&format!("tcp://{}", daemon.addresses().control)).await.unwrap();
    socket.send(ZmqMessage::from(Bytes::from(serde_json::to_vec(&request).unwrap()))).await.unwrap();
    let reply = tokio::time::timeout(PATIENCE, socket.recv()).await.expect("no reply").unwrap();
    serde_json::from_slice(reply.get(0).unwrap()).unwrap()
}
