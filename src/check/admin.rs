//! The admin listener's token.

use std::os::unix::fs::PermissionsExt as _;

use crate::config::Config;

use super::report::Report;

pub(crate) const AREA: &str = "admin";
/// What none but the owner, and readers of the file's group, may do.
const TOO_WIDE: u32 = 0o027;

pub(super) fn check(config: &Config, report: &mut Report) {
    let Some(path) = &config.admin.token_file else { return };
    // A file that is missing is a fault of the configuration.
    let Ok(found) = path.metadata() else { return };
    let mode = found.permissions().mode() & 0o777;
    let path = path.display();
    if mode & TOO_WIDE != 0 {
        report.warn(
            AREA,
            format!("other users of this machine may read or change the token {path} (mode {mode:03o})"),
            format!("chmod 600 {path}; make a new token if others may have read it"),
        );
    } else {
        report.ok(AREA, format!("{path} is closed to other users"));
    }
}
