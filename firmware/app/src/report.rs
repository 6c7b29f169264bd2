//! What the application says of its image at the start.

use forebay_board::ResetCause;
use forebay_flash::NorFlash;
use forebay_image::{Control, Evidence, EvidenceKind, Status, Version};
use log::{info, warn};

use crate::stack::StackUse;

/// Says which image runs, and reports evidence that is not yet reported.
pub(crate) fn at_start<F: NorFlash + Clone>(control: &mut Control<'_, F>, cause: ResetCause) {
    let Version { major, minor, patch } = control.version();
    let standing = match control.status() {
        Status::Confirmed => "confirmed",
        Status::Trial { .. } => "on trial",
        Status::Unconfirmed => "unconfirmed",
    };
    let state = *control.state();
    info!(
        "version {major}.{minor}.{patch} in slot {:?}, {standing}, reset {cause:?}",
        control.slot()
    );
    info!(
        "floor {}, refused {}, given up {}",
        state.counter_floor, state.refused, state.given_up
    );
    if let Some(evidence) = state.evidence
        && !evidence.reported
    {
        say(&evidence);
        if let Err(failure) = control.evidence_reported() {
            warn!("the evidence stays unreported: {failure:?}");
        }
    }
}

fn say(evidence: &Evidence) {
    let Version { major, minor, patch } = evidence.version;
    let (what, why) = match evidence.kind {
        EvidenceKind::RefusedAtBoot(refusal) => ("refused at boot", refusal.word()),
        EvidenceKind::RefusedAsUpdate(refusal) => ("refused as update", refusal.word()),
        EvidenceKind::GivenUp => ("given up", "not confirmed in its tries"),
    };
    warn!(
        "evidence: version {major}.{minor}.{patch} for slot {:?} {what}: {why}",
        evidence.slot
    );
}

/// Says how much stack was used.
pub(crate) fn stack(stack: StackUse) {
    info!("stack {} of {}", stack.most, stack.size);
}

/// The word for a reset's cause.
pub(crate) fn word(cause: ResetCause) -> &'static str {
    match cause {
        ResetCause::PowerOn => "power-on",
        ResetCause::Pin => "pin",
        ResetCause::Software => "software",
        ResetCause::Watchdog => "watchdog",
        ResetCause::Unknown => "unknown",
    }
}
