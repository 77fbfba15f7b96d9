//! The gRPC services' generated code. No logic: conversions live in `node` and `client`.

/// Between nodes.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod internal {
    tonic::include_proto!("meridian.internal.v1");
}

/// For drivers.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod sql {
    tonic::include_proto!("meridian.sql.v1");
}
