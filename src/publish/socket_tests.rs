//! The lanes over real sockets: with the `zeromq` crate as peer, and with peers made by hand that misbehave.

use super::zmtp::{Frame, FrameReader};
use super::*;
use crate::telemetry::{LaneMetrics, Problem};
use bytes::Bytes;
use ferrostem_proto::control::{ControlCommand, ControlReply, ControlRequest};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use zeromq::{Socket, SocketRecv, SocketSend};

const PATIENCE: Duration = Duration::from_secs(20);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const PING: &[u8] = b"\x04\x09\x04PING\0\x0aok";
const GREETING_3_1: &[u8] = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL";

async fn patiently<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("the other side did not answer")
}

fn lane(messages: usize, max_connections: usize) -> PubLane {
    let capacity = QueueCapacity { messages, bytes: 64 << 20 };
    let options = LaneOptions { name: "results", address: ANY_PORT, capacity, max_connections };
    PubLane::bind(options, LaneMetrics::default()).unwrap()
}

/// A peer made by hand.
struct RawPeer {
    frames: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl RawPeer {
    async fn connect(address: SocketAddr, socket_type: &[u8]) -> Self {
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        let mut hello = GREETING_3_1.to_vec();
        hello.resize(64, 0);
        hello.extend([4, 22 + socket_type.len() as u8]);
        hello.extend(b"\x05READY\x0bSocket-Type\0\0\0");
        hello.push(socket_type.len() as u8);
        hello.extend(socket_type);
        writer.write_all(&hello).await.unwrap();
        let mut greeting = [0; 64];
        patiently(reader.read_exact(&mut greeting)).await.unwrap();
        assert_eq!(&greeting[10..16], b"\x03\0NULL");
        let mut frames = FrameReader::new(reader, 1 << 30);
        assert!(matches!(patiently(frames.next()).await.unwrap(), Frame::Command(_)));
        Self { frames, writer }
    }

    /// Subscribes, and returns when the lane knows.
    async fn subscriber(address: SocketAddr, topic: &[u8]) -> Self {
        let mut peer = Self::connect(address, b"SUB").await;
        peer.writer.write_all(&[&[0, 1 + topic.len() as u8, 1], topic].concat()).await.unwrap();
        peer.barrier().await;
        peer
    }

    /// Returns when the other side has read everything that was sent before.
    async fn barrier(&mut self) {
        self.writer.write_all(PING).await.unwrap();
        let pong = patiently(self.frames.next()).await.unwrap();
        assert_eq!(pong, Frame::Command(super::zmtp::Command::Other("PONG".into())));
    }

    async fn receive(&mut self) -> Vec<Bytes> {
        let mut parts = Vec::new();
        loop {
            match patiently(self.frames.next()).await.unwrap() {
                Frame::Message { more, body } => {
                    parts.push(body);
                    if !more {
                        return parts;
                    }
                }
                Frame::Command(command) => panic!("expected a message, got {command:?}"),
            }
        }
    }

    async fn ends(&mut self) -> bool {
        patiently(self.frames.next()).await.is_err()
    }
}

/// Publishes until the subscriber hears it: a PUB socket does not say when a subscription has arrived.
async fn until_heard(subscriber: &mut zeromq::SubSocket, publish: impl Fn()) -> zeromq::ZmqMessage {
    patiently(async {
        loop {
            publish();
            if let Ok(received) = timeout(Duration::from_millis(20), subscriber.recv()).await {
                return received.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_subscriber_of_the_zeromq_crate_receives_both_kinds_of_message() {
    let lane = lane(8, 4);
    let publisher = lane.publisher();
    let mut subscriber = zeromq::SubSocket::new();
    subscriber.connect(&format!("tcp://{}", lane.address())).await.unwrap();
    subscriber.subscribe("result").await.unwrap();
    let heard =
        until_heard(&mut subscriber, || publisher.publish("result", Bytes::from(vec![7; 300_000]))).await;
    assert_eq!(heard.get(0).unwrap().as_ref(), b"result");
    assert_eq!(heard.get(1).unwrap().as_ref(), [7; 300_000]);
    subscriber.subscribe("{").await.unwrap();
    loop {
        publisher.publish("status", "unheard".into());
        let heard = until_heard(&mut subscriber, || publisher.publish_single("{single}".into())).await;
        match heard.len() {
            1 => break assert_eq!(heard.get(0).unwrap().as_ref(), b"{single}"),
            _ => assert_eq!(heard.get(0).unwrap().as_ref(), b"result"),
        }
    }
}

#[tokio::test]
async fn topics_filter_by_prefix_and_both_ways_of_subscribing_work() {
    let lane = lane(8, 4);
    let publisher = lane.publisher();
    let mut peer = RawPeer::subscriber(lane.address(), b"res").await;
    // ZMTP 3.1 subscribes by command.
    peer.writer.write_all(b"\x04\x14\x09SUBSCRIBEcandidates").await.unwrap();
    peer.barrier().await;
    for topic in ["status", "result", "candidates"] {
        publisher.publish(topic, topic.into());
    }
    assert_eq!(peer.receive().await, ["result", "result"]);
    assert_eq!(peer.receive().await, ["candidates", "candidates"]);
    assert_eq!(publisher.subscribers(), 1);
    peer.writer.write_all(b"\x04\x11\x06CANCELcandidates\x00\x04\0res").await.unwrap();
    peer.barrier().await;
    publisher.publish("result", "a".into());
    publisher.publish("candidates", "b".into());
    peer.barrier().await;
    // Still connected, as the barrier shows, but nothing that is published reaches it.
    assert_eq!((publisher.subscribers(), publisher.dropped()), (0, 0));
}

#[tokio::test]
async fn hostile_peers_are_dropped_and_the_lane_lives() {
    let lane = lane(8, 4);
    let giant = [&[0x02][..], &(1u64 << 44).to_be_bytes()].concat();
    let mut peer = RawPeer::connect(lane.address(), b"SUB").await;
    peer.writer.write_all(&giant).await.unwrap();
    assert!(peer.ends().await);

    let mut hello = GREETING_3_1.to_vec();
    hello.resize(64, 0);
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: microscope\r\n\r\n".to_vec(),
        vec![0; 100],
        vec![0xff; 100],
        [&hello[..], &giant].concat(),
        [&hello[..], b"\x04\x05\xffREAD"].concat(),
    ] {
        let mut stream = TcpStream::connect(lane.address()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        // Unread bytes make the kernel reset the connection, which is an end as well.
        let _ = patiently(stream.read_to_end(&mut answer)).await;
    }
    let mut many_topics = RawPeer::connect(lane.address(), b"SUB").await;
    for number in 0..100 {
        // Writing fails as soon as the lane has had enough.
        let _ = many_topics.writer.write_all(&[0, 2, 1, number]).await;
    }
    assert!(many_topics.ends().await);

    let mut honest = RawPeer::subscriber(lane.address(), b"").await;
    lane.publisher().publish("status", "alive".into());
    assert_eq!(honest.receive().await, ["status", "alive"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_subscriber_delays_nobody_and_holds_bounded_memory() {
    const MESSAGES: u64 = 2000;
    const SIZE: usize = 256 * 1024;
    let lane = lane(8, 4);
    let publisher = lane.publisher();
    let mut stalled = RawPeer::subscriber(lane.address(), b"").await;
    let mut healthy = RawPeer::subscriber(lane.address(), b"").await;
    let numbered = |number: u64| {
        let mut payload = vec![0; SIZE];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        Bytes::from(payload)
    };
    let number_of = |parts: &[Bytes]| u64::from_le_bytes(parts[1][..8].try_into().unwrap());

    let mut latencies = Vec::new();
    let mut held = 0;
    for number in 0..MESSAGES {
        let payload = numbered(number);
        let sent = Instant::now();
        publisher.publish("result", payload);
        assert_eq!(number_of(&healthy.receive().await), number);
        latencies.push(sent.elapsed());
        held = held.max(publisher.held_bytes());
    }
    latencies.sort_unstable();
    let median = latencies[latencies.len() / 2];
    assert!(median < Duration::from_millis(20), "{median:?}");
    let wire_size = SIZE + b"\x01\x06result\x02".len() + 8;
    assert_eq!(held, 9 * wire_size, "eight queued and one being written");
    // The kernel's buffers of both sides took the first few.
    let dropped = publisher.dropped();
    assert!((MESSAGES - 200..MESSAGES - 9).contains(&dropped), "{dropped}");

    // When it wakes up, whole messages come in order, and the newest is among them.
    let mut numbers = Vec::new();
    while numbers.last() != Some(&(MESSAGES - 1)) {
        let parts = stalled.receive().await;
        assert_eq!((parts[0].as_ref(), parts[1].len()), (&b"result"[..], SIZE));
        numbers.push(number_of(&parts));
    }
    assert!(numbers.is_sorted());
    assert_eq!(numbers.len() as u64, MESSAGES - dropped);
}

#[tokio::test]
async fn publishing_works_from_a_thread_outside_the_runtime() {
    let lane = lane(1, 4);
    let publisher = lane.publisher();
    let mut peer = RawPeer::subscriber(lane.address(), b"").await;
    std::thread::spawn(move || publisher.publish("status", "from a thread".into())).join().unwrap();
    assert_eq!(peer.receive().await, ["status", "from a thread"]);
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_and_counted() {
    let metrics = LaneMetrics::default();
    let capacity = QueueCapacity { messages: 8, bytes: 1 << 20 };
    let options = LaneOptions { name: "results", address: ANY_PORT, capacity, max_connections: 1 };
    let lane = PubLane::bind(options, metrics.clone()).unwrap();
    let first = RawPeer::subscriber(lane.address(), b"").await;
    let mut second = TcpStream::connect(lane.address()).await.unwrap();
    let mut answer = Vec::new();
    patiently(second.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty());
    assert_eq!((metrics.refused.get(), metrics.connections.get()), (1, 1));
    drop(first);
    patiently(async {
        while metrics.connections.get() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(lane.publisher().subscribers(), 0);
}

#[tokio::test]
async fn closing_delivers_what_is_queued() {
    let lane = lane(64, 4);
    let mut peer = RawPeer::subscriber(lane.address(), b"").await;
    let publisher = lane.publisher();
    (0..64).for_each(|_| publisher.publish("result", Bytes::from(vec![1; 100_000])));
    let reading = async {
        for _ in 0..64 {
            assert_eq!(peer.receive().await[1].len(), 100_000);
        }
        assert!(peer.ends().await);
    };
    tokio::join!(lane.close(PATIENCE), reading);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = lane(8, 4);
    let capacity = QueueCapacity { messages: 1, bytes: 1 };
    let options = LaneOptions { name: "latest", address: taken.address(), capacity, max_connections: 4 };
    let message = PubLane::bind(options, LaneMetrics::default()).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("cannot bind the lane latest to {}: ", taken.address())),
        "{message}"
    );
}

/// Answers with what it was asked; `snapshot` panics, `status` waits until it is told to go on.
#[derive(Default)]
struct Echo {
    go_on: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

impl ControlHandler for Echo {
    fn handle(&self, request: ControlRequest) -> ControlReply {
        match request.cmd {
            ControlCommand::Snapshot => panic!("this handler cannot"),
            ControlCommand::Status => {
                if let Some(go_on) = self.go_on.lock().unwrap().take() {
                    go_on.recv_timeout(PATIENCE).unwrap();
                }
            }
            _ => {}
        }
        request.reply(Ok(json!({ "cmd": request.cmd, "args": request.args })))
    }
}

fn control(handler: Echo) -> ControlServer {
    let answer = control::Commands(Arc::new(handler));
    ControlServer::bind("control", ANY_PORT, 4, LaneMetrics::default(), Arc::new(answer)).unwrap()
}

#[tokio::test]
async fn a_requester_of_the_zeromq_crate_is_answered() {
    let server = control(Echo::default());
    let mut requester = zeromq::ReqSocket::new();
    requester.connect(&format!("tcp://{}", server.address())).await.unwrap();
    let mut ask = async |request: &[u8]| -> Value {
        requester.send(Bytes::copy_from_slice(request).into()).await.unwrap();
        let reply = patiently(requester.recv()).await.unwrap();
        serde_json::from_slice(reply.get(0).unwrap()).unwrap()
    };
    assert_eq!(
        ask(br#"{"id":1,"cmd":"ack","args":{"candidate_id":5}}"#).await,
        json!({"id": 1, "ok": true, "result": {"cmd": "ack", "args": {"candidate_id": 5}}})
    );
    for (request, id, code) in [
        (&b"\xff\x00"[..], Value::Null, "bad_json"),
        (br#"{"id":"a"}"#, json!("a"), "bad_request"),
        (br#"{"id":[2],"cmd":"explode"}"#, json!([2]), "unknown_command"),
        (br#"{"id":3,"cmd":"snapshot"}"#, json!(3), "failed"),
    ] {
        let reply = ask(request).await;
        assert_eq!((&reply["id"], &reply["ok"], &reply["error"]["code"]), (&id, &json!(false), &json!(code)));
    }
    assert_eq!(ask(br#"{"cmd":"ping"}"#).await["ok"], true);
}

#[tokio::test]
async fn envelopes_come_back_as_they_were() {
    let server = control(Echo::default());
    let mut dealer = RawPeer::connect(server.address(), b"DEALER").await;
    let request = Bytes::from_static(br#"{"id":1,"cmd":"ping"}"#);
    for envelope in [&[][..], &[""], &["hop", ""], &["mine"], &["a", "b"]] {
        let envelope: Vec<Bytes> = envelope.iter().map(|part| Bytes::from_static(part.as_bytes())).collect();
        let message = super::zmtp::message(&[&envelope[..], std::slice::from_ref(&request)].concat());
        dealer.writer.write_all(&message).await.unwrap();
        let mut reply = dealer.receive().await;
        let body: Value = serde_json::from_slice(&reply.pop().unwrap()).unwrap();
        assert_eq!((reply, &body["ok"]), (envelope, &json!(true)));
    }
    // Nothing behind the delimiter, or too much.
    for parts in [&["", ""][..1], &["", "{}", "{}"]] {
        let parts: Vec<Bytes> = parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect();
        dealer.writer.write_all(&super::zmtp::message(&parts)).await.unwrap();
        let reply = dealer.receive().await;
        let body: Value = serde_json::from_slice(&reply[1]).unwrap();
        assert_eq!((reply.len(), &body["ok"]), (2, &json!(false)));
    }
    // Two megabytes are no request.
    let giant = Bytes::from(vec![b' '; 2 << 20]);
    let _ = dealer.writer.write_all(&super::zmtp::message(&[giant])).await;
    assert!(dealer.ends().await);
}

#[tokio::test]
async fn pings_are_answered_while_a_command_runs_and_closing_waits_for_it() {
    let (go_on, wait) = std::sync::mpsc::sync_channel(1);
    let server = control(Echo { go_on: Mutex::new(Some(wait)) });
    let mut dealer = RawPeer::connect(server.address(), b"DEALER").await;
    let request = Bytes::from_static(br#"{"id":1,"cmd":"status"}"#);
    dealer.writer.write_all(&super::zmtp::message(&[request])).await.unwrap();
    dealer.barrier().await;
    let closing = tokio::spawn(server.close(PATIENCE));
    dealer.barrier().await;
    go_on.send(()).unwrap();
    let reply: Value = serde_json::from_slice(&dealer.receive().await[0]).unwrap();
    assert_eq!(reply["ok"], true);
    patiently(closing).await.unwrap();
    assert!(dealer.ends().await);
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    patiently(stream.read_to_string(&mut response)).await.unwrap();
    let status = response[9..12].parse().unwrap();
    (status, response.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn all_four_endpoints_together() {
    let any = || "tcp://127.0.0.1:0".to_owned();
    let settings = LaneSettings {
        results: any(),
        latest: any(),
        control: any(),
        http: "127.0.0.1:0".into(),
        ..LaneSettings::default()
    };
    let telemetry = Arc::new(Telemetry::default());
    let lanes = Lanes::bind(&settings, &telemetry, Arc::new(Echo::default())).unwrap();
    let LaneAddresses { results, latest, control, http } = lanes.addresses();

    assert_eq!(get(http, "/readyz").await.0, 503);
    assert_eq!(get(http, "/healthz").await.0, 200);
    telemetry.set_ready();
    let problem = |fatal| Problem { key: "device".into(), message: "lost".into(), fatal };
    telemetry.set_problem(problem(false));
    assert_eq!(get(http, "/readyz").await.0, 200);
    assert_eq!(get(http, "/healthz").await.0, 200);
    telemetry.set_problem(problem(true));
    let (status, body) = get(http, "/healthz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["healthy"], &body["state"]), (503, &json!(false), &json!("degraded")));
    assert_eq!(body["problems"], json!([{"key": "device", "message": "lost", "fatal": true}]));

    let mut conflating = RawPeer::subscriber(latest, b"").await;
    let mut subscriber = RawPeer::subscriber(results, b"status").await;
    lanes.latest().publish_single("newest".into());
    lanes.results().publish("status", "fine".into());
    assert_eq!(conflating.receive().await, ["newest"]);
    assert_eq!(subscriber.receive().await, ["status", "fine"]);
    let (status, metrics) = get(http, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "ferrostem_lane_connections{lane=\"results\"} 1",
        "ferrostem_lane_messages_published_total{lane=\"latest\"} 1",
        "ferrostem_problems 1",
    ] {
        assert!(metrics.lines().any(|written| written == line), "no {line} in\n{metrics}");
    }
    let (_, page) = get(http, "/").await;
    for address in [results, latest, control] {
        assert!(page.contains(&format!("tcp://{address}")), "{page}");
    }
    assert_eq!(get(http, "/nowhere").await.0, 404);
    lanes.close(PATIENCE).await;
    assert!(conflating.ends().await && subscriber.ends().await);
    assert!(TcpStream::connect(http).await.is_err());
}
