//! Value: where to connect, from a URL.
//!
//! `postgresql://user@host:port,host:port/database` speaks PostgreSQL's protocol, `meridian://user@host:port,host:port/database` gRPC.
//! Several hosts are tried in turn.

/// Which protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// PostgreSQL's.
    Postgres,
    /// gRPC.
    Grpc,
}

/// A parsed URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Url {
    /// Which protocol.
    pub(crate) protocol: Protocol,
    /// Role.
    pub(crate) user: String,
    /// `host:port`, at least one.
    pub(crate) hosts: Vec<String>,
    /// Database.
    pub(crate) database: String,
}

/// Where the shell connects when nothing is said.
pub(crate) const DEFAULT_URL: &str =
    "meridian://root@127.0.0.1:17432,127.0.0.1:17433,127.0.0.1:17434/meridian";

impl Url {
    /// Parses; the error is for people.
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        let fail = |why: &str| Err(format!("URL `{text}`: {why}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return fail(
                "expected postgresql://user@host:port/database or meridian://user@host:port/database",
            );
        };
        let (protocol, port) = match scheme {
            "postgresql" | "postgres" => (Protocol::Postgres, 15432),
            "meridian" => (Protocol::Grpc, 17432),
            _ => return fail("the scheme must be postgresql or meridian"),
        };
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("root", rest));
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, "meridian"));
        let mut addresses = Vec::new();
        for host in hosts.split(',') {
            match host.rsplit_once(':') {
                _ if host.is_empty() => return fail("a host is empty"),
                Some((_, number)) if number.parse::<u16>().is_err() => {
                    return fail("a port is not a number up to 65535");
                }
                Some(_) => addresses.push(host.to_string()),
                None => addresses.push(format!("{host}:{port}")),
            }
        }
        let database = if database.is_empty() { "meridian" } else { database };
        Ok(Url {
            protocol,
            user: user.to_string(),
            hosts: addresses,
            database: database.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_protocol_user_hosts_and_database() {
        let url = Url::parse("meridian://app@a:1,b/shop").unwrap();
        assert_eq!(url.protocol, Protocol::Grpc);
        assert_eq!((url.user.as_str(), url.database.as_str()), ("app", "shop"));
        assert_eq!(url.hosts, ["a:1", "b:17432"]);
        let url = Url::parse("postgresql://localhost").unwrap();
        assert_eq!(
            (url.user.as_str(), url.database.as_str(), url.hosts[0].as_str()),
            ("root", "meridian", "localhost:15432")
        );
        for wrong in ["localhost", "http://x", "postgresql://a:b/c", "meridian://,/x"] {
            assert!(Url::parse(wrong).is_err(), "accepted {wrong}");
        }
    }
}
