use super::*;
use crate::simulate::microscope::turned;
use crate::simulate::{Defect, DefectKind, PixelType, Polarization, Specimen, render};
use ferrostem_proto::{Dtype, FrameMessage, FrameState, FramesMessage, Limits, cbor, recipe};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;
use zeromq::{ReqSocket, Socket, SocketRecv, SocketSend, SubSocket};

const PATIENCE: Duration = Duration::from_secs(20);

fn scene(pace: Pace) -> Scene {
    let microscope = Microscope { shape: [48, 64], dwell_us: 1.0, ..Microscope::default() };
    let server = ServerSettings {
        frames: "tcp://127.0.0.1:0".to_owned(),
        control: "tcp://127.0.0.1:0".to_owned(),
        acquisition: "test".to_owned(),
        pace,
        // Nothing is lost, however busy the machine.
        queue_frames: 1000,
        ..ServerSettings::default()
    };
    Scene { specimen: Specimen::default(), microscope, server }
}

/// A subscriber and a controller of a server.
struct Client {
    frames: SubSocket,
    control: ReqSocket,
}

impl Client {
    async fn connect(endpoints: &Endpoints) -> Self {
        let mut frames = SubSocket::new();
        frames.connect(&endpoints.frames).await.unwrap();
        frames.subscribe("").await.unwrap();
        let mut control = ReqSocket::new();
        control.connect(&endpoints.control).await.unwrap();
        Self { frames, control }
    }

    async fn next(&mut self) -> FramesMessage {
        let message = timeout(PATIENCE, self.frames.recv()).await.unwrap().unwrap();
        let [part] = &message.into_vec()[..] else { panic!("one part") };
        cbor::decode_frames(part, &Limits::default()).unwrap()
    }

    async fn next_frame(&mut self) -> FrameMessage {
        loop {
            if let FramesMessage::Frame(frame) = self.next().await {
                return *frame;
            }
        }
    }

    /// Waits for the end of the acquisition and returns its name.
    async fn stopped(&mut self) -> String {
        loop {
            if let FramesMessage::End(bracket) = self.next().await {
                return bracket.acquisition;
            }
        }
    }

    async fn ask(&mut self, request: Value) -> Value {
        self.control.send(request.to_string().into()).await.unwrap();
        let reply = timeout(PATIENCE, self.control.recv()).await.unwrap().unwrap();
        serde_json::from_slice(reply.get(0).unwrap()).unwrap()
    }

    /// Acquires one frame. Nothing may be running.
    async fn single(&mut self) -> FrameMessage {
        // The one before may have sent its `end` a moment ago.
        while self.ask(json!({ "cmd": "single" })).await["ok"] != true {}
        let frame = self.next_frame().await;
        self.stopped().await;
        frame
    }

    async fn result_of(&mut self, request: Value) -> Value {
        let reply = self.ask(request).await;
        assert_eq!(reply["ok"], true, "{reply}");
        reply["result"].clone()
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(test)
}

async fn start(scene: Scene) -> (AcquisitionServer, Client) {
    let server = AcquisitionServer::start(scene).unwrap();
    let client = Client::connect(server.endpoints()).await;
    (server, client)
}

/// As [`start`], for a scene that is not running: returns when the subscription is known to have arrived.
async fn start_subscribed(mut scene: Scene) -> (AcquisitionServer, Client) {
    scene.server.running = false;
    let (server, mut client) = start(scene).await;
    // A subscription is not acknowledged: ask for single frames until one arrives.
    loop {
        while client.ask(json!({ "cmd": "single" })).await["ok"] != true {}
        if let Ok(first) = timeout(Duration::from_millis(100), client.frames.recv()).await {
            first.unwrap();
            break;
        }
    }
    client.stopped().await;
    (server, client)
}

#[test]
fn an_acquisition_is_bracketed_and_numbered_from_0() {
    run(async {
        let (server, mut client) = start(scene(Pace::IntervalMs(5.0))).await;
        // Joined in the middle of the first acquisition; the second is seen from its beginning.
        client.next_frame().await;
        client.result_of(json!({ "cmd": "stop" })).await;
        let status = client.result_of(json!({ "cmd": "start" })).await;
        assert_eq!(status["state"], "running");
        loop {
            match client.next().await {
                FramesMessage::Begin(bracket) => {
                    assert_eq!(bracket.acquisition, "test-2");
                    break;
                }
                FramesMessage::Frame(frame) => assert_eq!(frame.acquisition.as_deref(), Some("test-1")),
                FramesMessage::End(bracket) => assert_eq!(bracket.acquisition, "test-1"),
            }
        }
        let mut end_before = 0;
        for seq in 0..5 {
            let frame = client.next_frame().await;
            assert_eq!((frame.seq, frame.acquisition.as_deref()), (seq, Some("test-2")));
            let (from, to) = (frame.t_start_ns.unwrap(), frame.t_end_ns.unwrap());
            // A frame takes its 5 ms (or more, on a busy machine), and follows the one before without a gap.
            assert!(to - from >= 5_000_000, "{}", to - from);
            assert!(seq == 0 || from == end_before);
            end_before = to;
            assert_eq!(frame.data.shape(), [48, 64]);
            assert_eq!(frame.valid_rows, Some([0, 48]));
            let [height_nm, width_nm] = frame.fov_nm.unwrap();
            assert!((height_nm - 0.72).abs() < 1e-12 && (width_nm - 0.96).abs() < 1e-12);
        }
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(now_ns.abs_diff(end_before) < 60_000_000_000);
        server.shutdown();
        assert_eq!(client.stopped().await, "test-2");
    });
}

#[test]
fn a_moved_scan_shows_the_other_part_of_the_specimen_from_the_next_frame_on() {
    run(async {
        let mut scene = scene(Pace::IntervalMs(5.0));
        scene.microscope.shot_noise = false;
        scene.specimen.static_displacement_pm = 6.0;
        let specimen = scene.specimen.clone();
        let home = scene.microscope.clone();
        let (server, mut client) = start_subscribed(scene).await;
        let moved =
            json!({ "cmd": "set_scan", "id": 3, "args": { "center_nm": [4.0, -7.5], "rotation_rad": 0.3 } });
        let reply = client.ask(moved).await;
        assert_eq!((reply["id"].clone(), reply["ok"].clone()), (json!(3), json!(true)));
        client.result_of(json!({ "cmd": "start" })).await;
        let frame = client.next_frame().await;
        assert_eq!((frame.center_nm, frame.rotation_rad), (Some([4.0, -7.5]), Some(0.3)));
        let there = Microscope { center_nm: [4.0, -7.5], rotation_rad: 0.3, ..home };
        let expected = render(&specimen, &there, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
        assert_eq!(frame.data, expected.pixel_array(PixelType::F32).unwrap());

        // While it runs: no frame before `next_seq` is moved, all later ones are.
        let status =
            client.result_of(json!({ "cmd": "set_scan", "args": { "center_nm": [1.0, 1.0] } })).await;
        let first_moved = status["next_seq"].as_u64().unwrap();
        loop {
            let frame = client.next_frame().await;
            let expected = if frame.seq < first_moved { [4.0, -7.5] } else { [1.0, 1.0] };
            assert_eq!(frame.center_nm, Some(expected), "frame {}", frame.seq);
            if frame.seq > first_moved + 2 {
                break;
            }
        }
        let refused = client.ask(json!({ "cmd": "set_scan", "args": { "fov_nm": -1.0 } })).await;
        assert_eq!(
            (refused["ok"].clone(), refused["error"]["code"].clone()),
            (json!(false), json!("bad_args"))
        );
        let status = client.result_of(json!({ "cmd": "status" })).await;
        assert_eq!(status["scan"]["center_nm"], json!([1.0, 1.0]));
        server.shutdown();
    });
}

#[test]
fn single_frames_stand_alone() {
    run(async {
        let mut scene = scene(Pace::Max);
        scene.microscope.detector.pixel_type = PixelType::U8;
        let (server, mut client) = start_subscribed(scene).await;
        let mut names = Vec::new();
        for _ in 0..2 {
            client.result_of(json!({ "cmd": "single" })).await;
            let FramesMessage::Begin(begin) = client.next().await else { panic!("a begin") };
            let FramesMessage::Frame(frame) = client.next().await else { panic!("a frame") };
            assert_eq!((frame.seq, frame.data.dtype()), (0, Dtype::U8));
            assert!(matches!(client.next().await, FramesMessage::End(end) if end == begin));
            names.push(begin.acquisition);
        }
        assert_ne!(names[0], names[1]);
        server.shutdown();
    });
}

#[test]
fn a_running_acquisition_refuses_a_second_one() {
    run(async {
        let (server, mut client) = start(scene(Pace::IntervalMs(5.0))).await;
        for cmd in ["start", "single"] {
            let refused = client.ask(json!({ "cmd": cmd })).await;
            assert_eq!(refused["error"]["code"], "unavailable", "{refused}");
        }
        let refused = client.ask(json!({ "cmd": "fly" })).await;
        assert_eq!(refused["error"]["code"], "unknown_command");
        server.shutdown();
    });
}

#[test]
fn the_pace_of_the_dwell_time_is_kept() {
    run(async {
        let mut scene = scene(Pace::Dwell);
        // 48 · 64 pixels of 5 µs: 15.36 ms a frame.
        scene.microscope.dwell_us = 5.0;
        scene.server.frames_per_acquisition = Some(4);
        let (server, mut client) = start_subscribed(scene).await;
        let asked = Instant::now();
        client.result_of(json!({ "cmd": "start" })).await;
        for _ in 0..4 {
            let frame = client.next_frame().await;
            assert!(frame.t_end_ns.unwrap() - frame.t_start_ns.unwrap() >= 15_360_000);
        }
        assert!(asked.elapsed() >= Duration::from_micros(4 * 15_360), "{:?}", asked.elapsed());
        assert!(matches!(client.next().await, FramesMessage::End(_)));
        assert_eq!(client.result_of(json!({ "cmd": "status" })).await["state"], "stopped");
        server.shutdown();
    });
}

#[test]
fn the_specimen_drifts_beneath_a_scan_that_stays() {
    run(async {
        let mut scene = scene(Pace::Max);
        scene.microscope.shot_noise = false;
        scene.microscope.rotation_rad = 0.4;
        scene.specimen.static_displacement_pm = 6.0;
        scene.specimen.polarization = Polarization::Uniform { p_pm: [20.0, 0.0] };
        scene.server.drift_nm_per_s = [30.0, -20.0];
        let (specimen, microscope) = (scene.specimen.clone(), scene.microscope.clone());
        let (server, mut client) = start_subscribed(scene).await;
        let scanned = client.result_of(json!({ "cmd": "status" })).await["frames"].as_u64().unwrap();
        client.result_of(json!({ "cmd": "start" })).await;
        for n in scanned..scanned + 2 {
            let frame = client.next_frame().await;
            assert_eq!(frame.center_nm, Some([0.0, 0.0]));
            // A frame takes 48 · 64 µs = 3.072 ms of beam time.
            let mid_s = (n as f64 + 0.5) * 3.072e-3;
            let [x, y] = turned([-20.0 * 3.072, 30.0 * 3.072], -0.4);
            let seen = Microscope {
                center_nm: [-30.0 * mid_s, 20.0 * mid_s],
                drift_pm: [x, y],
                ..microscope.clone()
            };
            let expected = render(&specimen, &seen, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
            let difference = frame
                .data
                .to_f32()
                .iter()
                .zip(&expected.pixels)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(difference < 1e-2, "{difference}");
        }
        server.shutdown();
    });
}

#[test]
fn an_address_in_use_and_a_bad_one_are_refused() {
    run(async {
        let (server, _client) = start(scene(Pace::IntervalMs(50.0))).await;
        let mut second = scene(Pace::Max);
        second.server.frames.clone_from(&server.endpoints().frames);
        let refused = tokio::task::spawn_blocking(|| AcquisitionServer::start(second).err()).await.unwrap();
        assert!(matches!(refused, Some(AcquisitionError::Socket(_))), "{refused:?}");
        let mut third = scene(Pace::Max);
        third.server.control = "127.0.0.1:5".to_owned();
        let refused = tokio::task::spawn_blocking(|| AcquisitionServer::start(third).err()).await.unwrap();
        assert!(refused.unwrap().to_string().contains("server.control"));
        server.shutdown();
    });
}

/// A crystal with one foreign, bright A column `at_nm`, without noise.
fn with_a_bright_site(at_nm: [f64; 2]) -> Scene {
    let mut scene = scene(Pace::Max);
    scene.microscope.shape = [96, 128];
    scene.microscope.shot_noise = false;
    scene.specimen.defects =
        vec![Defect { kind: DefectKind::SubstitutionA, at_nm, intensity_ratio: 4.0, radius_nm: 0.0 }];
    scene
}

/// The brightest pixel, `[row, col]`.
fn brightest(frame: &FrameMessage) -> [usize; 2] {
    let values = frame.data.to_f32();
    let (index, _) = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    let cols = frame.data.shape()[1];
    [index / cols, index % cols]
}

fn assert_centred(frame: &FrameMessage) {
    let [row, col] = brightest(frame);
    let [rows, cols] = frame.data.shape();
    let off =
        (row as f64 - (rows as f64 - 1.0) / 2.0).abs().max((col as f64 - (cols as f64 - 1.0) / 2.0).abs());
    assert!(off <= 1.0, "the bright site is at {row}, {col} of {rows} x {cols}");
}

#[test]
fn a_site_comes_into_the_middle_from_any_coordinate_system_under_rotation_and_sub_scan() {
    run(async {
        // An A site: 3 cells down, 2 left.
        let (server, mut client) = start_subscribed(with_a_bright_site([1.17, -0.78])).await;
        let args = json!({ "center_nm": [0.9, -0.5], "rotation_rad": 0.4, "fov_nm": 1.92 });
        client.result_of(json!({ "cmd": "set_scan", "args": args })).await;
        let full = client.single().await;
        let [row, col] = brightest(&full);
        assert!(row.abs_diff(48) > 4 || col.abs_diff(64) > 4, "not there yet");
        let (seq, acquisition) = (full.seq, full.acquisition.clone().unwrap());
        let [rows, cols] = full.data.shape().map(|n| n as f64);
        let frac = json!({ "y": (row as f64 + 0.5) / rows, "x": (col as f64 + 0.5) / cols });
        let (right, down) = ((col as f64 - 63.5) * 0.015, (row as f64 - 47.5) * 0.015);
        let [x, y] = turned([right, down], 0.4);
        for place in [
            json!({ "px": { "row": row, "col": col } }),
            json!({ "frac": frac }),
            json!({ "nm": { "x": x, "y": y, "rotation_rad": 0.4 } }),
        ] {
            let mut args = place.clone();
            args["seq"] = json!(seq);
            args["acquisition"] = json!(acquisition);
            client.result_of(json!({ "cmd": "go_to", "args": args })).await;
            assert_centred(&client.single().await);
            // The frame is remembered: the same place again, seen from elsewhere, turned and finer.
            args["rotation_rad"] = json!(-1.1);
            args["fov_nm"] = json!(1.6);
            client.result_of(json!({ "cmd": "go_to", "args": args })).await;
            assert_centred(&client.single().await);
        }

        // Back at the first scan, a part of it around the site, turned against it.
        let args = json!({
            "center_nm": [0.9, -0.5], "rotation_rad": 0.4, "fov_nm": 1.92,
            "subscan_fractional_size": [0.3, 0.3],
            "subscan_fractional_center": [frac["y"], frac["x"]],
            "subscan_rotation_rad": 0.5,
        });
        let status = client.result_of(json!({ "cmd": "set_scan", "args": args })).await;
        let part = client.single().await;
        assert_eq!(part.data.shape(), [29, 38]);
        assert_centred(&part);
        assert!((part.rotation_rad.unwrap() - 0.9).abs() < 1e-12);
        assert_eq!(part.center_nm.map(|c| json!(c)), Some(status["frame"]["center_nm"].clone()));
        assert_eq!(part.user_data.0["simulated"]["subscan"], status["subscan"]);
        // Places in a frame of the sub-scan lie where it says, too.
        let shifted = json!({ "subscan_fractional_center": [0.5, 0.5], "center_nm": [1.0, -0.6] });
        client.result_of(json!({ "cmd": "set_scan", "args": shifted })).await;
        let off = client.single().await;
        let [row, col] = brightest(&off);
        let place = json!({ "px": { "row": row, "col": col } });
        client.result_of(json!({ "cmd": "go_to", "args": place })).await;
        assert_centred(&client.single().await);

        let forgotten = json!({ "px": { "row": 1, "col": 1 }, "seq": 99 });
        let refused = client.ask(json!({ "cmd": "go_to", "args": forgotten })).await;
        assert_eq!(refused["error"]["code"], "not_found", "{refused}");
        server.shutdown();
    });
}

#[test]
fn the_recipe_carries_what_the_native_encoding_does() {
    run(async {
        for topic in [None, Some("frames".to_owned())] {
            let mut scene = scene(Pace::Max);
            scene.server.encoding = FrameEncoding::Pyzmq;
            scene.server.topic.clone_from(&topic);
            scene.server.running = false;
            scene.microscope.rotation_rad = 0.2;
            scene.microscope.detector.pixel_type = PixelType::U16;
            let (specimen, microscope) = (scene.specimen.clone(), scene.microscope.clone());
            let (server, mut client) = start(scene).await;
            // As in `start_subscribed`; the recipe has no `end` to wait for.
            let message = loop {
                while client.ask(json!({ "cmd": "single" })).await["ok"] != true {}
                if let Ok(message) = timeout(Duration::from_millis(100), client.frames.recv()).await {
                    break message.unwrap().into_vec();
                }
            };
            let [leading @ .., header, pixels] = &message[..] else { panic!("{} parts", message.len()) };
            assert_eq!(leading.first().map(|part| part.to_vec()), topic.map(String::into_bytes));
            let frame = recipe::decode_recipe(header, pixels, 77, &Limits::default()).unwrap();
            assert_eq!((frame.seq, frame.rotation_rad), (0, Some(0.2)));
            assert_eq!(frame.fov_nm, Some(microscope.fov_nm()));
            assert!(frame.acquisition.unwrap().starts_with("test-"));
            assert!(frame.t_end_ns.unwrap() >= frame.t_start_ns.unwrap());
            assert_eq!((frame.data.dtype(), frame.data.shape()), (Dtype::U16, [48, 64]));
            // The noise is that of one of the frames so far.
            let asked = client.result_of(json!({ "cmd": "status" })).await["frames"].as_u64().unwrap();
            let same = (0..=asked).any(|n| {
                let mut rng = ChaCha8Rng::seed_from_u64(0);
                rng.set_stream(n);
                render(&specimen, &microscope, &mut rng).unwrap().pixel_array(PixelType::U16).unwrap()
                    == frame.data
            });
            assert!(same, "the pixels are those of the scene");
            server.shutdown();
        }
    });
}

#[test]
fn a_slow_scan_shows_what_it_has_so_far() {
    run(async {
        let mut scene = scene(Pace::IntervalMs(40.0));
        scene.server.partial_frames = 3;
        let (server, mut client) = start_subscribed(scene).await;
        client.result_of(json!({ "cmd": "single" })).await;
        assert!(matches!(client.next().await, FramesMessage::Begin(_)));
        let mut parts = Vec::new();
        while let FramesMessage::Frame(frame) = client.next().await {
            parts.push(*frame);
        }
        let rows: Vec<_> = parts.iter().map(|part| (part.seq, part.state, part.valid_rows)).collect();
        let partial = |to| (0, Some(FrameState::Partial), Some([0, to]));
        let complete = (0, Some(FrameState::Complete), Some([0, 48]));
        assert_eq!(rows, [partial(12), partial(24), partial(36), complete]);
        let whole = parts[3].data.to_f32();
        for part in &parts[..3] {
            let values = part.data.to_f32();
            let valid = part.valid_rows.unwrap()[1] as usize * 64;
            assert_eq!(values[..valid], whole[..valid]);
            assert!(values[valid..].iter().all(|value| *value == 0.0));
            assert!(part.t_end_ns < parts[3].t_end_ns);
        }
        server.shutdown();
    });
}

#[test]
fn garbage_and_announced_giants_cost_their_sender_the_connection_and_nobody_else() {
    use std::io::{Read as _, Write as _};
    run(async {
        let (server, mut client) = start(scene(Pace::IntervalMs(5.0))).await;
        let address = server.endpoints().control.strip_prefix("tcp://").unwrap().to_owned();
        tokio::task::spawn_blocking(move || {
            // A greeting of ZMTP 3.0 with NULL, then a frame that announces 2^44 bytes.
            let mut greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL".to_vec();
            greeting.resize(64, 0);
            let giant = [&greeting[..], b"\x02", &(1u64 << 44).to_be_bytes()].concat();
            for bytes in [&b"GET / HTTP/1.1\r\n\r\n................................................................"[..], &giant] {
                let mut stream = std::net::TcpStream::connect(&address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(bytes).unwrap();
                // The server hangs up; a reset says the same as an end.
                while matches!(stream.read(&mut [0; 256]), Ok(n) if n > 0) {}
            }
        })
        .await
        .unwrap();
        assert_eq!(client.result_of(json!({ "cmd": "status" })).await["state"], "running");
        server.shutdown();
    });
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let key = |change: fn(&mut ServerSettings)| {
        let mut settings = ServerSettings::default();
        change(&mut settings);
        settings.validate("server").unwrap_err().key
    };
    assert_eq!(key(|s| s.topic = Some("frames".to_owned())), "server.topic");
    assert_eq!(key(|s| s.partial_frames = 101), "server.partial_frames");
    assert_eq!(key(|s| s.frames_per_acquisition = Some(0)), "server.frames_per_acquisition");
    assert!(
        toml::from_str::<ServerSettings>("encoding = 'pyzmq'\ntopic = 'a'").unwrap().validate("").is_ok()
    );
}
