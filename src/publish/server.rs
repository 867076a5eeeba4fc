//! Accepting connections on a lane: a limit on how many, one task each, an orderly end.

use super::PublishError;
use super::zmtp::ZmtpError;
use crate::telemetry::LaneMetrics;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long a peer may take over the handshake.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// What the kernel may hold for one peer on our side. Left to itself it takes megabytes, and a slow subscriber then
/// reads results that are seconds old whatever our own queue does.
const SEND_BUFFER: u32 = 256 * 1024;
const BACKLOG: u32 = 128;
/// Pause after `accept` failed, which it does when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Becomes true when a server is asked to end; also over when the server is gone.
pub(super) type Stop = watch::Receiver<bool>;

/// Returns when the server is to end.
pub(super) async fn stopped(stop: &mut Stop) {
    // An error means that the sender is gone, and the server with it.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Binds `address` for `lane`.
///
/// # Errors
/// [`PublishError::Bind`], most often because the address is in use.
pub(super) fn listen(lane: &'static str, address: SocketAddr) -> Result<TcpListener, PublishError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // On Windows this option would let two daemons bind the same port.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        // Accepted connections inherit both.
        socket.set_keepalive(true)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    if !address.ip().is_loopback() {
        tracing::warn!(lane, %address, "bound beyond loopback: anyone who reaches this address can connect");
    }
    bind().map_err(|source| PublishError::Bind { lane, address, source })
}

/// The address that `listener` got.
pub(super) fn local_address(lane: &'static str, listener: &TcpListener) -> Result<SocketAddr, PublishError> {
    listener.local_addr().map_err(|source| PublishError::Address { lane, source })
}

/// A lane's accepting task and, below it, one task a connection. Dropping it ends them all at once.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Serves every connection with `serve`, at most `limit` at a time; the others are refused and counted.
    pub(super) fn start<S, F>(
        lane: &'static str,
        listener: TcpListener,
        limit: usize,
        metrics: LaneMetrics,
        serve: S,
    ) -> Result<Self, PublishError>
    where
        S: Fn(TcpStream, Stop) -> F + Send + 'static,
        F: Future<Output = Result<(), ZmtpError>> + Send + 'static,
    {
        let address = local_address(lane, &listener)?;
        let (stop, stop_seen) = watch::channel(false);
        let accepting = tokio::spawn(accept(lane, listener, stop_seen, Gate { limit, metrics }, serve));
        tracing::info!(lane, %address, "bound");
        Ok(Self { address, stop, accepting })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nobody any more, lets the connections finish what they have, for at most `grace`, and ends.
    pub(super) async fn close(mut self, grace: Duration) {
        self.stop.send_replace(true);
        // What is left after the grace period ends when `self` is dropped.
        let _ = tokio::time::timeout(grace, &mut self.accepting).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Gate {
    limit: usize,
    metrics: LaneMetrics,
}

async fn accept<S, F>(lane: &'static str, listener: TcpListener, mut stop: Stop, gate: Gate, serve: S)
where
    S: Fn(TcpStream, Stop) -> F + Send + 'static,
    F: Future<Output = Result<(), ZmtpError>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let peers_stop = stop.clone();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if connections.len() < gate.limit => {
                    let serving = serve(stream, peers_stop.clone());
                    connections.spawn(async move { report(lane, peer, serving.await) });
                }
                Ok((stream, peer)) => {
                    gate.metrics.refused.inc();
                    tracing::warn!(lane, %peer, limit = gate.limit, "refused: as many connections as are allowed");
                    drop(stream);
                }
                Err(error) => {
                    tracing::error!(lane, %error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn report(lane: &'static str, peer: SocketAddr, outcome: Result<(), ZmtpError>) {
    match outcome {
        Ok(()) | Err(ZmtpError::Closed | ZmtpError::Io(_)) => tracing::debug!(lane, %peer, "disconnected"),
        Err(error) => tracing::warn!(lane, %peer, %error, "connection ended"),
    }
}
