//! The control lane: one JSON request, one JSON reply.
//!
//! `{"id": …, "cmd": "ack", "args": {…}}` is answered by `{"id": …, "ok": true, "result": {…}}` or
//! `{"id": …, "ok": false, "error": {"code": …, "message": …}}`. The `id` is the client's, any JSON value, and returns as it came.

use crate::limits::Limits;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A request whose command is yet to be looked at: what the daemon's control lane and other sockets of this shape share.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedRequest {
    pub id: Value,
    pub cmd: String,
    pub args: Map<String, Value>,
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlRequest {
    #[serde(default)]
    pub id: Value,
    pub cmd: ControlCommand,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub args: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlCommand {
    Ping,
    Status,
    /// The newest result's summary.
    Snapshot,
    /// Changes settings: [`ConfigureArgs`].
    Configure,
    /// Replaces a network: [`LoadModelArgs`].
    LoadModel,
    /// Begins a session file: [`RecordStartArgs`].
    RecordStart,
    RecordStop,
    /// What became of a candidate: [`AckArgs`].
    Ack,
    Shutdown,
}

/// `configure`: dotted keys of the config and their new values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigureArgs {
    pub set: Map<String, Value>,
}

/// `load_model`: the directory that holds `model.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadModelArgs {
    pub role: ModelRole,
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelRole {
    Dcnn,
    Fcnn,
}

/// `record_start`: the file to write; `None` = named by the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordStartArgs {
    #[serde(default)]
    pub path: Option<String>,
    /// Go on with the file if it exists, as a new segment.
    #[serde(default)]
    pub append: bool,
}

/// `ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckArgs {
    pub candidate_id: u64,
    pub verdict: Verdict,
}

/// What a controller did with a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It will go there.
    Accepted,
    /// It will not.
    Rejected,
    /// It came too late.
    Expired,
    /// It has been there.
    Done,
}

/// Why a request failed, for programs; the message beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// No JSON object.
    BadJson,
    /// An object that is no request: no `cmd`, or `args` that are no object.
    BadRequest,
    /// `cmd` is none of [`ControlCommand`].
    UnknownCommand,
    /// `args` are not those of the command.
    BadArgs,
    /// The candidate, model or file that `args` name does not exist.
    NotFound,
    /// Understood, and not possible in the state that the daemon is in.
    Unavailable,
    /// Tried, and failed.
    Failed,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {message}", .code.name())]
pub struct ControlError {
    pub code: ErrorCode,
    pub message: String,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawReply", into = "RawReply")]
pub struct ControlReply {
    /// As in the request; `null` where it could not be read.
    pub id: Value,
    pub outcome: Result<Value, ControlError>,
}

#[derive(Serialize, Deserialize)]
struct RawReply {
    #[serde(default)]
    id: Value,
    ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ControlError>,
}

impl ControlCommand {
    pub const ALL: [Self; 9] = [
        Self::Ping,
        Self::Status,
        Self::Snapshot,
        Self::Configure,
        Self::LoadModel,
        Self::RecordStart,
        Self::RecordStop,
        Self::Ack,
        Self::Shutdown,
    ];

    /// As on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Status => "status",
            Self::Snapshot => "snapshot",
            Self::Configure => "configure",
            Self::LoadModel => "load_model",
            Self::RecordStart => "record_start",
            Self::RecordStop => "record_stop",
            Self::Ack => "ack",
            Self::Shutdown => "shutdown",
        }
    }
}

impl Verdict {
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Rejected, Self::Expired, Self::Done];

    /// As on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Done => "done",
        }
    }
}

impl ErrorCode {
    /// As on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadRequest => "bad_request",
            Self::UnknownCommand => "unknown_command",
            Self::BadArgs => "bad_args",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

impl ControlError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl NamedRequest {
    /// Reads a request. Unknown keys are ignored.
    ///
    /// # Errors
    /// The reply to send back, with the request's `id` where that much could be read.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, Box<ControlReply>> {
        let refuse = |id: Value, code, message: String| {
            Box::new(ControlReply { id, outcome: Err(ControlError { code, message }) })
        };
        if bytes.len() > limits.max_user_data_bytes {
            let message = format!(
                "a request of {} bytes, at most {} are read",
                bytes.len(),
                limits.max_user_data_bytes
            );
            return Err(refuse(Value::Null, ErrorCode::BadRequest, message));
        }
        let mut request: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| {
            refuse(Value::Null, ErrorCode::BadJson, format!("expected a JSON object: {error}"))
        })?;
        let id = request.remove("id").unwrap_or_default();
        let Some(Value::String(cmd)) = request.remove("cmd") else {
            return Err(refuse(id, ErrorCode::BadRequest, "expected a text under \"cmd\"".to_owned()));
        };
        match request.remove("args") {
            None | Some(Value::Null) => Ok(Self { id, cmd, args: Map::new() }),
            Some(Value::Object(args)) => Ok(Self { id, cmd, args }),
            Some(other) => {
                let message = format!("expected an object under \"args\", found {other}");
                Err(refuse(id, ErrorCode::BadRequest, message))
            }
        }
    }

    /// `args` as the type that belongs to the command `cmd`.
    ///
    /// # Errors
    /// `bad_args`, saying which is missing, unknown or of the wrong type.
    pub fn typed<T: DeserializeOwned>(cmd: &str, args: &Map<String, Value>) -> Result<T, ControlError> {
        serde_json::from_value(Value::Object(args.clone()))
            .map_err(|error| ControlError::new(ErrorCode::BadArgs, format!("args of {cmd}: {error}")))
    }

    /// The error for a command that is none of `known`.
    pub fn unknown(&self, known: &[&str]) -> ControlError {
        let message = format!("{:?} is not one of {}", self.cmd, known.join(", "));
        ControlError::new(ErrorCode::UnknownCommand, message)
    }
}

impl ControlRequest {
    /// Reads a request. Unknown keys are ignored.
    ///
    /// # Errors
    /// The reply to send back, with the request's `id` where that much could be read.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, Box<ControlReply>> {
        let request = NamedRequest::parse(bytes, limits)?;
        let Some(cmd) = ControlCommand::ALL.into_iter().find(|cmd| cmd.name() == request.cmd) else {
            let error = request.unknown(&ControlCommand::ALL.map(ControlCommand::name));
            return Err(Box::new(ControlReply { id: request.id, outcome: Err(error) }));
        };
        Ok(Self { id: request.id, cmd, args: request.args })
    }

    /// The arguments as the type that belongs to the command.
    ///
    /// # Errors
    /// `bad_args`, saying which is missing, unknown or of the wrong type.
    pub fn typed_args<T: DeserializeOwned>(&self) -> Result<T, ControlError> {
        NamedRequest::typed(self.cmd.name(), &self.args)
    }

    /// The reply that carries `outcome` back to the sender.
    pub fn reply(&self, outcome: Result<Value, ControlError>) -> ControlReply {
        ControlReply { id: self.id.clone(), outcome }
    }
}

impl ControlReply {
    /// The reply as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // A tree of JSON values always serialises; `Value`'s own Display does not return an error.
        let raw = RawReply::from(self.clone());
        let mut reply = Map::from_iter([("id".to_owned(), raw.id), ("ok".to_owned(), raw.ok.into())]);
        if let Some(result) = raw.result {
            reply.insert("result".to_owned(), result);
        }
        if let Some(ControlError { code, message }) = raw.error {
            let error = serde_json::json!({ "code": code.name(), "message": message });
            reply.insert("error".to_owned(), error);
        }
        Value::Object(reply).to_string().into_bytes()
    }
}

impl From<ControlReply> for RawReply {
    fn from(reply: ControlReply) -> Self {
        let (result, error) = match reply.outcome {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self { id: reply.id, ok: error.is_none(), result, error }
    }
}

impl TryFrom<RawReply> for ControlReply {
    type Error = &'static str;

    fn try_from(raw: RawReply) -> Result<Self, &'static str> {
        let outcome = match (raw.ok, raw.result, raw.error) {
            (true, result, None) => Ok(result.unwrap_or_default()),
            (false, None, Some(error)) => Err(error),
            _ => return Err("expected ok = true with a result, or ok = false with an error"),
        };
        Ok(Self { id: raw.id, outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(text: &str) -> Result<ControlRequest, Box<ControlReply>> {
        ControlRequest::parse(text.as_bytes(), &Limits::default())
    }

    #[test]
    fn an_ack_is_read_and_answered() {
        let request =
            parse(r#"{"id":"q7","cmd":"ack","args":{"candidate_id":12,"verdict":"done"},"later":1}"#)
                .unwrap();
        assert_eq!(request.cmd, ControlCommand::Ack);
        let args: AckArgs = request.typed_args().unwrap();
        assert_eq!(args, AckArgs { candidate_id: 12, verdict: Verdict::Done });
        let reply: Value = serde_json::from_slice(&request.reply(Ok(json!({"acks": 1}))).to_json()).unwrap();
        assert_eq!(reply, json!({"id": "q7", "ok": true, "result": {"acks": 1}}));
    }

    #[test]
    fn errors_carry_a_code_and_the_id() {
        let refused = |text: &str| {
            let reply = *parse(text).unwrap_err();
            let error = reply.outcome.unwrap_err();
            (reply.id, error.code.name())
        };
        assert_eq!(refused("\u{0}\u{1}"), (Value::Null, "bad_json"));
        assert_eq!(refused("[1]"), (Value::Null, "bad_json"));
        assert_eq!(refused(r#"{"id":1}"#), (json!(1), "bad_request"));
        assert_eq!(refused(r#"{"id":[2],"cmd":"explode"}"#), (json!([2]), "unknown_command"));
        assert_eq!(refused(r#"{"id":3,"cmd":"ping","args":[]}"#), (json!(3), "bad_request"));
        let request = parse(r#"{"cmd":"ack","args":{"candidate_id":1,"verdict":"maybe"}}"#).unwrap();
        let error = request.typed_args::<AckArgs>().unwrap_err();
        assert_eq!(error.code, ErrorCode::BadArgs);
        assert!(error.message.contains("maybe") && error.message.contains("ack"), "{}", error.message);
    }

    #[test]
    fn names_are_those_of_serde_and_replies_return() {
        for cmd in ControlCommand::ALL {
            assert_eq!(serde_json::to_value(cmd).unwrap(), cmd.name());
        }
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.name());
        }
        let failed = ControlError::new(ErrorCode::NotFound, "no candidate 9");
        for outcome in [Ok(json!({"a": [1, 2]})), Ok(Value::Null), Err(failed)] {
            let reply = ControlReply { id: json!({"n": 1}), outcome };
            let again: ControlReply = serde_json::from_slice(&reply.to_json()).unwrap();
            assert_eq!(again, reply);
            assert_eq!(
                serde_json::to_value(&reply).unwrap(),
                serde_json::from_slice::<Value>(&reply.to_json()).unwrap()
            );
        }
        let contradictory = r#"{"id":1,"ok":true,"error":{"code":"failed","message":""}}"#;
        assert!(serde_json::from_str::<ControlReply>(contradictory).is_err());
    }
}
