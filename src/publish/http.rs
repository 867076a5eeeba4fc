//! The HTTP side: metrics, health, readiness, and a page that says where everything is.

use super::PublishError;
use super::server::{listen, local_address, stopped};
use crate::telemetry::Telemetry;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A line of the front page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneLine {
    pub name: &'static str,
    pub socket: &'static str,
    pub endpoint: String,
    pub content: &'static str,
}

#[derive(Debug, Clone)]
struct Shared {
    telemetry: Arc<Telemetry>,
    lanes: Arc<[LaneLine]>,
}

/// The routes `/`, `/metrics`, `/healthz` and `/readyz`; more may be merged into it.
pub fn router(telemetry: Arc<Telemetry>, lanes: Vec<LaneLine>) -> Router {
    Router::new()
        .route("/", get(front_page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .with_state(Shared { telemetry, lanes: lanes.into() })
}

/// A bound HTTP server. Dropping it ends it.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl HttpServer {
    /// Binds `address` and serves `router` there. Wants a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(address: SocketAddr, router: Router) -> Result<Self, PublishError> {
        let listener = listen("http", address)?;
        let address = local_address("http", &listener)?;
        let (stop, mut stop_seen) = watch::channel(false);
        let until_stop = async move { stopped(&mut stop_seen).await };
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(until_stop).await {
                tracing::error!(%error, "the HTTP server ended");
            }
        });
        tracing::info!(lane = "http", %address, "bound");
        Ok(Self { address, stop, serving })
    }

    /// The address that was bound, with the port that was taken where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets requests in progress finish for at most `grace`.
    pub async fn close(mut self, grace: Duration) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(grace, &mut self.serving).await;
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match shared.telemetry.metrics_text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn health(State(shared): State<Shared>) -> impl IntoResponse {
    let problems = shared.telemetry.problems();
    let fatal = problems.iter().any(|problem| problem.fatal);
    let status = if fatal { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let body = json!({
        "healthy": !fatal,
        "state": shared.telemetry.state().as_str(),
        "problems": problems,
    });
    (status, Json(body))
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let ready = shared.telemetry.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "state": shared.telemetry.state().as_str() })))
}

async fn front_page(State(shared): State<Shared>) -> Html<String> {
    let mut page = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>FerroSTEM</title><h1>FerroSTEM</h1>\n\
         <table><tr><th>lane<th>socket<th>endpoint<th>content</tr>\n",
    );
    for LaneLine { name, socket, endpoint, content } in shared.lanes.iter() {
        page.push_str(&format!("<tr><td>{name}<td>{socket}<td><code>{endpoint}</code><td>{content}</tr>\n"));
    }
    page.push_str(&format!(
        "</table>\n<p>State: {}. <a href=\"/metrics\">metrics</a> <a href=\"/healthz\">health</a> \
         <a href=\"/readyz\">readiness</a></p>\n",
        shared.telemetry.state().as_str()
    ));
    Html(page)
}
