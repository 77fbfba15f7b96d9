//! Value: how a node is started.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::faults::Latencies;
use crate::shared::Chaos;

/// Everything a node must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its data directory, made if it is not there.
    pub data: PathBuf,
    /// Its region's name.
    pub region: String,
    /// Its zone's name within the region.
    pub zone: String,
    /// Where PostgreSQL clients connect.
    pub sql_addr: SocketAddr,
    /// Where other nodes and gRPC clients connect; also what others are told, as `advertise_addr`.
    pub rpc_addr: SocketAddr,
    /// Where `/health`, `/ready` and `/metrics` are.
    pub http_addr: SocketAddr,
    /// RPC address as others reach it; `rpc_addr` if not given.
    pub advertise_addr: Option<String>,
    /// RPC addresses of nodes to ask for admission; our own may be among them.
    pub join: Vec<String>,
    /// Whether faults may be injected.
    pub chaos: Chaos,
    /// Injected latencies.
    pub latencies: Latencies,
    /// Cache of the state engine, in bytes.
    pub cache_bytes: usize,
}

/// A locality that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "locality `{0}`: expected region=NAME or region=NAME,zone=NAME with letters, digits and dashes"
)]
pub struct LocalityError(String);

/// `region=us-east,zone=a` as (region, zone); the zone is `default` if not given.
pub fn parse_locality(text: &str) -> Result<(String, String), LocalityError> {
    let fail = || LocalityError(text.to_string());
    let (mut region, mut zone) = (None, None);
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(fail)?;
        let value = value.trim();
        if value.is_empty()
            || !value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        {
            return Err(fail());
        }
        match name.trim() {
            "region" if region.is_none() => region = Some(value.to_string()),
            "zone" if zone.is_none() => zone = Some(value.to_string()),
            _ => return Err(fail()),
        }
    }
    Ok((region.ok_or_else(fail)?, zone.unwrap_or_else(|| "default".to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locality_names_a_region_and_perhaps_a_zone() {
        assert_eq!(parse_locality("region=us-east,zone=a"), Ok(("us-east".into(), "a".into())));
        assert_eq!(parse_locality("region=x"), Ok(("x".into(), "default".into())));
        for wrong in [
            "",
            "us-east",
            "zone=a",
            "region=",
            "region=a,region=b",
            "region=a b",
            "rack=1,region=a",
        ] {
            assert!(parse_locality(wrong).is_err(), "accepted {wrong}");
        }
    }
}
