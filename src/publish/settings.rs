//! Where the lanes are bound and how much may wait on them.

use super::queue::QueueCapacity;
use crate::config::InvalidSetting;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How a lane's payloads are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaneEncoding {
    /// CBOR with typed arrays: readable from any language.
    #[default]
    Cbor,
    /// bincode 2, for Rust peers.
    Bincode,
}

/// The endpoints that the daemon binds, and the limits on them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LaneSettings {
    /// PUB socket: topic and payload. Port 0 takes a free one.
    pub results: String,
    /// PUB socket: the newest result alone.
    pub latest: String,
    /// REP-compatible socket: JSON requests and replies.
    pub control: String,
    /// `address:port` of the HTTP server.
    pub http: String,
    /// Lets the endpoints above be other than loopback addresses. There is no authentication.
    pub allow_remote: bool,
    pub results_encoding: LaneEncoding,
    pub latest_encoding: LaneEncoding,
    /// Messages that may wait for one subscriber of `results`; the oldest make room for the newest. 1..=4096.
    pub subscriber_queue: usize,
    /// MiB that may wait for one subscriber of either lane (one message always may). 1..=4096.
    pub subscriber_queue_mib: usize,
    /// Connections that each lane serves at the same time. 1..=1024.
    pub max_connections: usize,
}

impl Default for LaneSettings {
    fn default() -> Self {
        Self {
            results: "tcp://127.0.0.1:5556".into(),
            latest: "tcp://127.0.0.1:5557".into(),
            control: "tcp://127.0.0.1:5558".into(),
            http: "127.0.0.1:5580".into(),
            allow_remote: false,
            results_encoding: LaneEncoding::Cbor,
            latest_encoding: LaneEncoding::Cbor,
            subscriber_queue: 8,
            subscriber_queue_mib: 64,
            max_connections: 64,
        }
    }
}

/// The endpoints of [`LaneSettings`] as addresses that may be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneAddresses {
    pub results: SocketAddr,
    pub latest: SocketAddr,
    pub control: SocketAddr,
    pub http: SocketAddr,
}

impl LaneSettings {
    /// Checks everything that can be checked without binding.
    ///
    /// # Errors
    /// The first setting that cannot be used, its key under `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let ranges = [
            ("subscriber_queue", self.subscriber_queue, 4096),
            ("subscriber_queue_mib", self.subscriber_queue_mib, 4096),
            ("max_connections", self.max_connections, 1024),
        ];
        for (key, value, largest) in ranges {
            if !(1..=largest).contains(&value) {
                return Err(InvalidSetting::new(
                    format!("{key_prefix}.{key}"),
                    value,
                    format!("1 to {largest}"),
                ));
            }
        }
        self.addresses(key_prefix).map(drop)
    }

    /// The endpoints as addresses.
    ///
    /// # Errors
    /// An endpoint that is no address, one that is not loopback without `allow_remote`, and two that are the same.
    pub fn addresses(&self, key_prefix: &str) -> Result<LaneAddresses, InvalidSetting> {
        let parse = |lane: &str, endpoint: &str, scheme: &str| {
            let invalid = |expected| InvalidSetting::new(format!("{key_prefix}.{lane}"), endpoint, expected);
            let address = parse_endpoint(endpoint, scheme).ok_or_else(|| {
                invalid(format!("{scheme}ADDRESS:PORT, the address numeric, `localhost` or `*`"))
            })?;
            if self.allow_remote || address.ip().is_loopback() {
                return Ok(address);
            }
            Err(invalid(format!(
                "a loopback address, or {key_prefix}.allow_remote = true (there is no authentication)"
            )))
        };
        let addresses = LaneAddresses {
            results: parse("results", &self.results, "tcp://")?,
            latest: parse("latest", &self.latest, "tcp://")?,
            control: parse("control", &self.control, "tcp://")?,
            http: parse("http", &self.http, "")?,
        };
        let named = [
            ("results", addresses.results),
            ("latest", addresses.latest),
            ("control", addresses.control),
            ("http", addresses.http),
        ];
        for (index, (lane, address)) in named.iter().enumerate() {
            let taken = named[..index].iter().find(|(_, other)| address.port() != 0 && other == address);
            if let Some((other, _)) = taken {
                return Err(InvalidSetting::new(
                    format!("{key_prefix}.{lane}"),
                    address,
                    format!("an address other than that of {key_prefix}.{other}"),
                ));
            }
        }
        Ok(addresses)
    }

    /// What may wait for one subscriber of `results`.
    pub fn results_capacity(&self) -> QueueCapacity {
        QueueCapacity { messages: self.subscriber_queue, bytes: self.subscriber_queue_mib << 20 }
    }

    /// What may wait for one subscriber of `latest`: the newest message.
    pub fn latest_capacity(&self) -> QueueCapacity {
        QueueCapacity { messages: 1, ..self.results_capacity() }
    }
}

fn parse_endpoint(endpoint: &str, scheme: &str) -> Option<SocketAddr> {
    let (host, port) = endpoint.strip_prefix(scheme)?.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let ip = match host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => IpAddr::V6(v6.parse().ok()?),
            None => IpAddr::V4(host.parse().ok()?),
        },
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut LaneSettings)) -> String {
        let mut settings = LaneSettings::default();
        change(&mut settings);
        settings.validate("lanes").unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let settings = LaneSettings::default();
        settings.validate("lanes").unwrap();
        let addresses = settings.addresses("lanes").unwrap();
        assert_eq!(addresses.results, "127.0.0.1:5556".parse().unwrap());
        assert_eq!(addresses.latest, "127.0.0.1:5557".parse().unwrap());
        assert_eq!(addresses.control, "127.0.0.1:5558".parse().unwrap());
        assert_eq!(addresses.http, "127.0.0.1:5580".parse().unwrap());
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<LaneSettings>(&text).unwrap(), settings);
        assert!(toml::from_str::<LaneSettings>("resluts = 'tcp://127.0.0.1:1'").is_err());
    }

    #[test]
    fn endpoints_are_parsed_as_written() {
        let parse = |endpoint| parse_endpoint(endpoint, "tcp://").map(|address| address.to_string());
        assert_eq!(parse("tcp://localhost:0").unwrap(), "127.0.0.1:0");
        assert_eq!(parse("tcp://*:5556").unwrap(), "0.0.0.0:5556");
        assert_eq!(parse("tcp://[::1]:5556").unwrap(), "[::1]:5556");
        for wrong in ["127.0.0.1:5556", "tcp://127.0.0.1", "tcp://microscope:5556", "tcp://127.0.0.1:65536"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn remote_binds_must_be_asked_for() {
        let message = refused(|settings| settings.latest = "tcp://*:5557".into());
        assert!(message.starts_with("lanes.latest = tcp://*:5557: expected a loopback address"), "{message}");
        let open =
            LaneSettings { latest: "tcp://*:5557".into(), allow_remote: true, ..LaneSettings::default() };
        open.validate("lanes").unwrap();
    }

    #[test]
    fn unusable_settings_are_named() {
        assert!(refused(|settings| settings.subscriber_queue = 0).starts_with("lanes.subscriber_queue = 0"));
        assert!(
            refused(|settings| settings.max_connections = 5000)
                .starts_with("lanes.max_connections = 5000: expected 1 to 1024")
        );
        assert!(
            refused(|settings| settings.http = "127.0.0.1:5558".into())
                .contains("other than that of lanes.control")
        );
        let free = |lane: &str| format!("{lane}127.0.0.1:0");
        let settings =
            LaneSettings { results: free("tcp://"), latest: free("tcp://"), ..LaneSettings::default() };
        settings.validate("lanes").unwrap();
    }
}
