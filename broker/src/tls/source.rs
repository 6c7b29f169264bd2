//! Where a listener's TLS comes from: it is asked again until it has it.

use std::fmt;
use std::sync::Arc;

use super::{ServerTls, TlsError};

type Load = dyn Fn() -> Result<Arc<ServerTls>, TlsError> + Send + Sync;

/// Gives a listener its TLS when that opens. Cheap to clone.
///
/// The files of a listener may come later than the gateway (a mount), or be half renewed: then it fails, and is asked again.
#[derive(Clone)]
pub struct TlsSource(Arc<Load>);

impl TlsSource {
    /// From what `load` finds; it may block on the disk.
    pub fn new(load: impl Fn() -> Result<Arc<ServerTls>, TlsError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(load))
    }

    /// The TLS as it is now. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn load(&self) -> Result<Arc<ServerTls>, TlsError> {
        (self.0)()
    }
}

impl From<Arc<ServerTls>> for TlsSource {
    fn from(tls: Arc<ServerTls>) -> Self {
        Self::new(move || Ok(Arc::clone(&tls)))
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSource")
    }
}
