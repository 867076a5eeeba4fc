//! Everything that the daemon binds: the PUB lanes `results` and `latest`, the control socket, the HTTP server.
//!
//! The sockets speak ZeroMQ's protocol through our own [`zmtp`] and not through the `zeromq` crate, whose bound sockets
//! queue up to 100 000 messages for a slow subscriber and abort the process when a peer announces a giant frame.

mod control;
mod http;
mod lanes;
mod queue;
mod server;
mod settings;
mod zmtp;

#[cfg(test)]
mod socket_tests;

pub use control::{Answer, ControlHandler, ControlServer};
pub use http::{HttpServer, LaneLine, router};
pub use lanes::{LaneOptions, PubLane, Publisher};
pub use queue::QueueCapacity;
pub use settings::{LaneAddresses, LaneEncoding, LaneSettings};

use crate::config::InvalidSetting;
use crate::telemetry::Telemetry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why the lanes could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("cannot bind the lane {lane} to {address}: {source}")]
    Bind { lane: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("cannot tell which address the lane {lane} got: {source}")]
    Address { lane: &'static str, source: std::io::Error },
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
}

/// All that the daemon binds, bound.
#[derive(Debug)]
pub struct Lanes {
    results: PubLane,
    latest: PubLane,
    control: ControlServer,
    http: HttpServer,
}

impl Lanes {
    /// Binds the four endpoints of the settings. Wants a tokio runtime.
    ///
    /// # Errors
    /// A setting that cannot be used, an address that cannot be bound; what was bound before is free again then.
    pub fn bind(
        settings: &LaneSettings,
        telemetry: &Arc<Telemetry>,
        handler: Arc<dyn ControlHandler>,
    ) -> Result<Self, PublishError> {
        settings.validate("lanes")?;
        let addresses = settings.addresses("lanes")?;
        let max_connections = settings.max_connections;
        let pub_lane = |name, address, capacity, metrics| {
            PubLane::bind(LaneOptions { name, address, capacity, max_connections }, metrics)
        };
        let metrics = &telemetry.lanes;
        let results =
            pub_lane("results", addresses.results, settings.results_capacity(), metrics.results.clone())?;
        let latest =
            pub_lane("latest", addresses.latest, settings.latest_capacity(), metrics.latest.clone())?;
        let control = ControlServer::bind(
            "control",
            addresses.control,
            max_connections,
            metrics.control.clone(),
            Arc::new(control::Commands(handler)),
        )?;
        let lines = lane_lines([results.address(), latest.address(), control.address()]);
        let http = HttpServer::bind(addresses.http, router(Arc::clone(telemetry), lines))?;
        Ok(Self { results, latest, control, http })
    }

    /// Publishes topic and payload.
    pub fn results(&self) -> Publisher {
        self.results.publisher()
    }

    /// Publishes the payload of `result` alone.
    pub fn latest(&self) -> Publisher {
        self.latest.publisher()
    }

    /// The addresses that were bound, with the ports that were taken where 0 was asked for.
    pub fn addresses(&self) -> LaneAddresses {
        LaneAddresses {
            results: self.results.address(),
            latest: self.latest.address(),
            control: self.control.address(),
            http: self.http.address(),
        }
    }

    /// Closes all four at the same time: what is queued, running or being answered has at most `grace`.
    pub async fn close(self, grace: Duration) {
        let Self { results, latest, control, http } = self;
        tokio::join!(results.close(grace), latest.close(grace), control.close(grace), http.close(grace));
    }
}

fn lane_lines([results, latest, control]: [SocketAddr; 3]) -> Vec<LaneLine> {
    let line = |name, socket, address, content| LaneLine {
        name,
        socket,
        endpoint: format!("tcp://{address}"),
        content,
    };
    vec![
        line("results", "PUB", results, "topic (result, candidates, status) and payload"),
        line("latest", "PUB", latest, "the newest result, one part"),
        line("control", "REP", control, "JSON request and reply"),
    ]
}
