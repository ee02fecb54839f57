//! Whether the gateway has recorded what it carried: its own count of audit events that found no room.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const COUNTER: &str = "ringwall_audit_events_refused_total";

/// Events that were refused since the gateway's start, from `/metrics` of its admin listener.
pub(crate) fn refused(admin: SocketAddr) -> io::Result<u64> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    counter(&answer).ok_or_else(|| io::Error::other(format!("the metrics have no {COUNTER}")))
}

fn counter(metrics: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix(COUNTER)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::counter;

    #[test]
    fn the_counter_is_found_behind_its_description() {
        let metrics = "HTTP/1.1 200 OK\r\n\r\n# HELP ringwall_audit_events_refused Events.\n\
                       ringwall_audit_events_written_total 3\nringwall_audit_events_refused_total 1295107\n# EOF\n";
        assert_eq!(counter(metrics), Some(1_295_107));
        assert_eq!(counter("ringwall_audit_events_written_total 3\n"), None);
    }
}
