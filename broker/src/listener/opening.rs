//! Opening a listener: its files are read, then its address is bound. Either may not be there yet (a lease, a mount, a broker that is
//! still stopping), so it is tried until it succeeds, and the other listeners serve meanwhile.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpListener;

use super::ListenerConfig;
use crate::context::Context;
use crate::tls::ServerTls;

const RETRY: Duration = Duration::from_secs(1);

/// What a listener serves with.
pub(crate) struct Opened {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<Arc<ServerTls>>,
}

/// Tries once. `Err` says why not, and what to do.
pub(crate) async fn open(listener: &ListenerConfig) -> Result<Opened, String> {
    let tls = match listener.tls.clone() {
        None => None,
        Some(source) => match tokio::task::spawn_blocking(move || source.load()).await {
            Ok(Ok(tls)) => Some(tls),
            Ok(Err(error)) => {
                let source = error.source().map_or_else(String::new, |source| format!(" ({source})"));
                return Err(format!("{error}{source}"));
            }
            Err(error) => return Err(format!("its files could not be read: {error}; please report it")),
        },
    };
    let socket = TcpListener::bind(listener.bind).await.map_err(|error| cannot_listen(&error))?;
    Ok(Opened { socket, tls })
}

/// Tries until it succeeds; `why` is what the last try said. `None` at shutdown.
pub(crate) async fn wait_until_open(listener: &ListenerConfig, mut why: String, context: &Context) -> Option<Opened> {
    let address = listener.bind;
    loop {
        context.closed_listeners.note(address, &why);
        if context.is_first(&address.to_string(), "listener_closed") {
            tracing::error!(%address, "a listener cannot serve: {why}; it is tried again each second, and the others serve meanwhile");
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return None,
            () = tokio::time::sleep(RETRY) => {}
        }
        match open(listener).await {
            Ok(opened) => {
                context.closed_listeners.opened(address);
                tracing::info!(%address, "the listener serves now");
                return Some(opened);
            }
            Err(error) => why = error,
        }
    }
}

/// Why an address cannot be listened on, and what to do, by what the system said.
#[must_use]
pub fn cannot_listen(error: &io::Error) -> String {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let advice = match errno {
        Some(Errno::ADDRINUSE) => "another program has the port: stop it (`ss -ltnp` names it)",
        Some(Errno::ADDRNOTAVAIL) => "this machine does not have the address, or not yet: compare `ip address`",
        Some(Errno::ACCESS | Errno::PERM) => "ports below 1024 require the capability CAP_NET_BIND_SERVICE: choose a higher port",
        Some(Errno::AFNOSUPPORT) => "this machine has no IPv6: listen on 0.0.0.0",
        Some(Errno::MFILE | Errno::NFILE) => "there are no file descriptors left: raise the limit of open files",
        _ => "check this machine's network",
    };
    format!("cannot listen: {advice} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b1_each_errno_has_words_of_its_own_and_none_blames_a_broker_without_reason() {
        let said = |errno: Errno| cannot_listen(&io::Error::from_raw_os_error(errno.raw_os_error()));
        for (errno, words) in [
            (Errno::ADDRINUSE, "another program has the port"),
            (Errno::ADDRNOTAVAIL, "does not have the address, or not yet"),
            (Errno::ACCESS, "CAP_NET_BIND_SERVICE"),
            (Errno::AFNOSUPPORT, "no IPv6"),
            (Errno::MFILE, "file descriptors"),
            (Errno::NETDOWN, "check this machine's network"),
        ] {
            let said = said(errno);
            assert!(said.contains(words), "{said}");
            assert_eq!(said.contains("another program"), errno == Errno::ADDRINUSE, "{said}");
        }
    }
}
