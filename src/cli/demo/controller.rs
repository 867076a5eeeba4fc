//! A small controller, as a user would write one: it reads results, picks the best candidate that it has not visited,
//! tells the microscope to go there, and acknowledges.

use bytes::Bytes;
use crossbeam_channel::Sender;
use ferrostem_proto::{
    Candidate, FrameMessage, FramesMessage, Limits, ResultMessage, ResultsMessage, StatusMessage, cbor,
};
use ndarray::Array2;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use zeromq::{ReqSocket, Socket, SocketRecv, SocketSend, SubSocket, ZmqMessage};

/// Bytes of pixels that may wait for their results. A frame waits for as long as its result takes, which on a starved processor is
/// many frames' time: at a frame of 512² every half second, this is two minutes.
const KEPT_BYTES: usize = 256 << 20;
/// A request that takes longer has failed.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Endpoints {
    pub results: String,
    pub control: String,
    pub frames: String,
    pub scan: String,
}

/// What the demo shows of the controller's work.
pub(super) enum Event {
    /// A result, with its frame where it arrived.
    Result {
        frame: Option<Array2<f32>>,
        result: Box<ResultMessage>,
    },
    Status(Box<StatusMessage>),
    Steered(Steering),
    Failed(String),
}

/// A move to a candidate.
pub(super) struct Steering {
    candidate: Candidate,
    center_nm: [f64; 2],
}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [y, x] = self.center_nm;
        write!(f, "to candidate {} at y {y:.1}, x {x:.1} nm: {}", self.candidate.id, self.candidate.reason)
    }
}

pub(super) struct Controller {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Controller {
    pub fn start(endpoints: Endpoints, events: Sender<Event>) -> std::io::Result<Self> {
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("controller".to_owned()).spawn(move || {
            runtime.block_on(async {
                let failures = events.clone();
                tokio::select! {
                    outcome = follow(&endpoints, events) => {
                        if let Err(error) = outcome {
                            // The view may be closed already.
                            let _ = failures.try_send(Event::Failed(format!("{error:#}")));
                        }
                    }
                    _ = stopped.wait_for(|&stop| stop) => {}
                }
            });
        })?;
        Ok(Self { stop, thread })
    }

    pub fn stop(self) {
        self.stop.send_replace(true);
        // A panic there was reported when it happened.
        let _ = self.thread.join();
    }
}

async fn follow(endpoints: &Endpoints, events: Sender<Event>) -> anyhow::Result<()> {
    let mut results = SubSocket::new();
    results.connect(&endpoints.results).await?;
    for topic in ["result", "status"] {
        results.subscribe(topic).await?;
    }
    let mut frames = SubSocket::new();
    frames.connect(&endpoints.frames).await?;
    frames.subscribe("").await?;
    let mut steer = Steer::connect(endpoints).await?;
    let mut waiting = Waiting::within(KEPT_BYTES);
    loop {
        tokio::select! {
            // A result finds its frame here, however much of either has come meanwhile.
            biased;
            message = frames.recv() => waiting.keep(message?)?,
            message = results.recv() => {
                let message = message?;
                let Some(payload) = message.get(1) else { continue };
                match cbor::decode_results(payload, &Limits::default())? {
                    ResultsMessage::Status(status) => offer(&events, Event::Status(status)),
                    ResultsMessage::Candidates(_) => {}
                    ResultsMessage::Result(result) => {
                        let frame = waiting.take(&result);
                        let center_nm = frame.as_ref().and_then(|frame| frame.center_nm);
                        let pixels = frame.and_then(|frame| {
                            let [rows, cols] = frame.data.shape();
                            Array2::from_shape_vec((rows, cols), frame.data.to_f32()).ok()
                        });
                        if let Some(steering) = steer.consider(&result, center_nm).await? {
                            offer(&events, Event::Steered(steering));
                        }
                        offer(&events, Event::Result { frame: pixels, result });
                    }
                }
            }
        }
    }
}

/// The view may be slow or gone; the controller goes on.
fn offer(events: &Sender<Event>, event: Event) {
    let _ = events.try_send(event);
}

/// Frames whose results have not come yet, by acquisition and sequence number.
struct Waiting {
    frames: BTreeMap<(String, u64), FrameMessage>,
    /// Bytes of pixels that may wait.
    most_bytes: usize,
}

impl Waiting {
    const fn within(most_bytes: usize) -> Self {
        Self { frames: BTreeMap::new(), most_bytes }
    }

    fn keep(&mut self, message: ZmqMessage) -> anyhow::Result<()> {
        let Some(payload) = message.get(0) else { return Ok(()) };
        if let FramesMessage::Frame(frame) = cbor::decode_frames(payload, &Limits::default())? {
            self.insert(*frame);
        }
        Ok(())
    }

    /// The oldest give way to a new one.
    fn insert(&mut self, frame: FrameMessage) {
        self.frames.insert((frame.acquisition.clone().unwrap_or_default(), frame.seq), frame);
        while self.frames.len() > 1 && self.bytes() > self.most_bytes {
            self.frames.pop_first();
        }
    }

    fn bytes(&self) -> usize {
        self.frames.values().map(|frame| frame.data.bytes().len()).sum()
    }

    fn take(&mut self, result: &ResultMessage) -> Option<FrameMessage> {
        let frame = self.frames.remove(&(result.acquisition.clone(), result.seq));
        self.frames.retain(|(acquisition, seq), _| *acquisition != result.acquisition || *seq > result.seq);
        frame
    }
}

/// Where to go next, and the two sockets to say so.
struct Steer {
    control: ReqSocket,
    scan: ReqSocket,
    /// Results of frames before this one show the place that was left.
    from_seq: u64,
    /// The candidate that the scan was moved to.
    visiting: Option<u64>,
}

impl Steer {
    async fn connect(endpoints: &Endpoints) -> anyhow::Result<Self> {
        let (mut control, mut scan) = (ReqSocket::new(), ReqSocket::new());
        control.connect(&endpoints.control).await?;
        scan.connect(&endpoints.scan).await?;
        Ok(Self { control, scan, from_seq: 0, visiting: None })
    }

    /// Moves the scan to the best candidate of a frame that shows where the scan is now.
    async fn consider(
        &mut self,
        result: &ResultMessage,
        center_nm: Option<[f64; 2]>,
    ) -> anyhow::Result<Option<Steering>> {
        if result.seq < self.from_seq {
            return Ok(None);
        }
        if let Some(visited) = self.visiting.take() {
            self.acknowledge(visited, "done").await?;
        }
        let best = result
            .candidates
            .iter()
            .filter(|candidate| candidate.nm.x.is_finite())
            .max_by(|a, b| a.score.total_cmp(&b.score));
        let (Some(candidate), Some([y, x])) = (best, center_nm) else { return Ok(None) };
        let center_nm = [y + candidate.nm.y, x + candidate.nm.x];
        let request = json!({ "id": result.seq, "cmd": "set_scan", "args": { "center_nm": center_nm } });
        let reply = ask(&mut self.scan, &request).await?;
        self.from_seq = reply["result"]["next_seq"].as_u64().unwrap_or(result.seq + 1);
        self.acknowledge(candidate.id, "accepted").await?;
        self.visiting = Some(candidate.id);
        Ok(Some(Steering { candidate: candidate.clone(), center_nm }))
    }

    async fn acknowledge(&mut self, candidate_id: u64, verdict: &str) -> anyhow::Result<()> {
        let request = json!({
            "id": candidate_id,
            "cmd": "ack",
            "args": { "candidate_id": candidate_id, "verdict": verdict },
        });
        // A site that was forgotten meanwhile is no failure.
        ask(&mut self.control, &request).await.map(|_| ())
    }
}

async fn ask(socket: &mut ReqSocket, request: &Value) -> anyhow::Result<Value> {
    let bytes = Bytes::from(serde_json::to_vec(request)?);
    socket.send(ZmqMessage::from(bytes)).await?;
    let reply = timeout(REPLY_TIMEOUT, socket.recv()).await??;
    let body = reply.get(0).cloned().unwrap_or_default();
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrostem_proto::{ArrayError, PixelArray};

    #[test]
    fn a_late_result_still_finds_its_frame_and_what_came_before_is_let_go() {
        let frame = |seq: u64, side: usize| -> Result<FrameMessage, ArrayError> {
            let data = PixelArray::from_f32([side; 2], &vec![1.0; side * side])?;
            Ok(FrameMessage { acquisition: Some("a".to_owned()), ..FrameMessage::new(seq, data) })
        };
        let mut waiting = Waiting::within(KEPT_BYTES);
        for seq in 0..100 {
            waiting.insert(frame(seq, 64).unwrap());
        }
        let result =
            |seq: u64| ResultMessage { acquisition: "a".to_owned(), seq, ..ResultMessage::default() };
        assert_eq!(waiting.take(&result(40)).map(|frame| frame.seq), Some(40));
        assert_eq!(waiting.frames.keys().next().map(|(_, seq)| *seq), Some(41));
        assert!(waiting.take(&result(40)).is_none());
        // Room for four frames of 64².
        let mut waiting = Waiting::within(4 * 4 * 64 * 64);
        for seq in 200..206 {
            waiting.insert(frame(seq, 64).unwrap());
        }
        let kept: Vec<u64> = waiting.frames.keys().map(|(_, seq)| *seq).collect();
        assert_eq!(kept, [202, 203, 204, 205]);
    }
}
