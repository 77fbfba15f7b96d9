//! Driver: `/health` (the process answers), `/ready` (it serves SQL), `/metrics` (Prometheus text).

use axum::Router;
use axum::extract::State;
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

async fn ready(State(state): State<HttpState>) -> (StatusCode, axum::Json<serde_json::Value>) {
    let ready = state.ready.load(Ordering::Relaxed);
    let summary = state.metrics.summary().await;
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(json!({ "ready": ready, "node": summary })))
}

async fn metrics(State(state): State<HttpState>) -> Result<String, StatusCode> {
    state.metrics.render().await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
