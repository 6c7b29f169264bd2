//! TCP's own keep-alive. On MQTT 3.1.1 a server cannot shorten a client's keep-alive, and 0 turns it off: then only the system finds a
//! peer that is gone.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io;
use rustix::net::sockopt;

/// Probes without an answer, after which the connection is closed.
const PROBES: u32 = 3;
/// The longest time that Linux takes.
const LONGEST: Duration = Duration::from_secs(32_767);

/// Lets the system close a connection whose peer has not been heard for 1.5 times `max_keep_alive`, as an MQTT keep-alive of that length
/// would: after that time of silence it asks, three times within half of it.
///
/// # Errors
/// The system's.
pub(super) fn set(socket: impl AsFd, max_keep_alive: Duration) -> io::Result<()> {
    let second = Duration::from_secs(1);
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, max_keep_alive.clamp(second, LONGEST))?;
    sockopt::set_tcp_keepintvl(&socket, (max_keep_alive / (2 * PROBES)).clamp(second, LONGEST))?;
    sockopt::set_tcp_keepcnt(&socket, PROBES)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn p5_the_system_asks_after_the_longest_keep_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for (seconds, idle, interval) in [(5, 5, 1), (60, 60, 10), (1200, 1200, 200), (65_535, 32_767, 10_923)] {
            set(&socket, Duration::from_secs(seconds)).unwrap();
            assert!(sockopt::socket_keepalive(&socket).unwrap());
            assert_eq!(sockopt::tcp_keepidle(&socket).unwrap().as_secs(), idle);
            assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap().as_secs(), interval);
            assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), PROBES);
        }
    }
}
