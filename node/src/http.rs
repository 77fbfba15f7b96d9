//! Driver: `/health` (the process answers), `/ready` (it serves SQL; `?nodes=N`: and a cluster of N bears the loss of a node), `/metrics` (Prometheus text).

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What the pages show.
#[derive(Clone)]
pub struct HttpState {
    /// Whether SQL is served.
    pub ready: Arc<AtomicBool>,
    /// Everything measured.
    pub metrics: Arc<Metrics>,
}

/// Serves until `stop`.
pub async fn run(
    listener: TcpListener,
    state: HttpState,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let pages = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state);
    axum::serve(listener, pages).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

async fn health() -> axum::Json<serde_json::Value> {
    axum::Json(json!({ "status": "alive", "version": env!("CARGO_PKG_VERSION") }))
}

/// `/ready?nodes=3`: SQL is served, the cluster has so many nodes, and every range led here has its replicas where they should be. When
/// each node says so, the cluster bears the loss of one.
#[derive(serde::Deserialize)]
struct Wanted {
    nodes: Option<usize>,
}

async fn ready(
    State(state): State<HttpState>,
    Query(wanted): Query<Wanted>,
) -> (StatusCode, axum::Json<serde_json::Value>) {
    let placement = state.metrics.placement().await;
    let settled = wanted.nodes.is_none_or(|nodes| {
        placement.is_some_and(|placement| placement.nodes >= nodes && placement.unsettled == 0)
    });
    let ready = state.ready.load(Ordering::Relaxed) && settled;
    let summary = state.metrics.summary(placement);
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(json!({ "ready": ready, "node": summary })))
}

async fn metrics(State(state): State<HttpState>) -> Result<String, StatusCode> {
    state.metrics.render().await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
