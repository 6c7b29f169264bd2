//! Whether the wall clock is believed. The judge has no clock of its own, so that a test can show it any step.

use std::fmt;

/// How far wall clock and boot time may part between two looks; slewing adds a thousandth of the time between them.
pub(super) const TOLERANCE_MS: i64 = 1_000;
/// How far a synchronised clock may step within a boot and be believed at once.
const STEP_MS: i64 = HOUR_MS;
/// How long a synchronised clock must stand where it was not expected before it is believed.
pub(super) const CONFIRM_MS: u64 = 3_600_000;
/// How far a time of the cloud may be from the wall clock and agree with it; an old one by 200 ppm more.
const CLOUD_TOLERANCE_MS: i64 = 60_000;
/// No gateway is off for longer, so the first synchronised time of a boot that lies farther ahead must stand first.
const FAR_MS: u64 = 400 * DAY_MS;
/// The same where no trusted time is on disk: how long a release is installed after it was made.
const FAR_FROM_RELEASE_MS: u64 = 3_650 * DAY_MS;
/// How far the time on disk may rise at once; more must stand first.
const KEEP_STEP_MS: u64 = DAY_MS;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;

/// What the system says of its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// The kernel says that it is synchronised.
    Kernel,
    /// The kernel does not say; the file of systemd-timesyncd does.
    TimesyncFile,
    /// The kernel says that it is not.
    No,
    /// Neither says anything; the kernel's error number.
    Unknown(i32),
}

/// Why the wall clock is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustSource {
    /// The kernel says that it is synchronised (`adjtimex`).
    Kernel,
    /// systemd-timesyncd says so by a file, where the kernel may not be asked.
    TimesyncFile,
    /// A time of the verified cloud agrees.
    Cloud,
    /// It was trusted earlier in this boot and has kept pace with the boot time since.
    Boot,
}

/// Why the wall clock is not trusted. Differences are in milliseconds, positive where the wall clock is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing has synchronised it in this boot.
    NotSynchronised,
    /// Nobody says whether it is synchronised: the kernel refuses, with this error number, and there is no file of timesyncd.
    Unknown {
        /// `errno` of `adjtimex`.
        errno: i32,
    },
    /// It shows a moment that has passed already.
    Past {
        /// How far it is behind.
        by_ms: u64,
    },
    /// It was set within this boot to where the boot time does not lead.
    Jumped {
        /// By how much.
        by_ms: i64,
    },
    /// It is farther ahead of what is known to have passed than a gateway is ever off.
    FarAhead {
        /// By how much.
        by_ms: u64,
    },
    /// The verified cloud says another time.
    CloudDisagrees {
        /// By how much.
        by_ms: i64,
    },
}

/// One look at the clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// The wall clock, milliseconds since 1970.
    pub(super) wall_ms: u64,
    /// Since the boot, sleep included.
    pub(super) boot_ms: u64,
    pub(super) sync: Sync,
}

/// What the judge says of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) trust: Result<TrustSource, Doubt>,
    /// The time may be written to disk as the last trusted one.
    pub(super) may_be_kept: bool,
    /// The wall clock was set since the last sample, by so much.
    pub(super) jump_ms: Option<i64>,
}

/// Where wall clock and boot time stood to each other at a moment.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Wall clock minus boot time.
    offset_ms: i64,
    /// When it was last seen so, in boot time.
    seen_ms: u64,
    /// When it was first seen so.
    since_ms: u64,
}

/// Judges samples of one boot, in order.
#[derive(Debug)]
pub(super) struct Judge {
    /// No moment before can be right.
    past_ms: u64,
    /// The end of our own certificate: nothing later is kept.
    ceiling_ms: Option<u64>,
    /// The last trusted time on disk.
    last_trusted_ms: Option<u64>,
    /// The pace that is trusted.
    anchor: Option<Pace>,
    /// A pace that may become so.
    candidate: Option<Pace>,
    /// What the cloud said, as a pace.
    cloud: Option<Pace>,
    last: Option<Pace>,
}

impl Sync {
    const fn source(self) -> Option<TrustSource> {
        match self {
            Self::Kernel => Some(TrustSource::Kernel),
            Self::TimesyncFile => Some(TrustSource::TimesyncFile),
            Self::No | Self::Unknown(_) => None,
        }
    }
}

impl Sample {
    const fn pace(&self) -> Pace {
        Pace {
            offset_ms: self.wall_ms as i64 - self.boot_ms as i64,
            seen_ms: self.boot_ms,
            since_ms: self.boot_ms,
        }
    }
}

impl Pace {
    /// How far the later `other` is ahead of this one; `None` if not by more than what slewing explains.
    const fn parted(&self, other: &Self) -> Option<i64> {
        let slewed = (other.seen_ms.saturating_sub(self.seen_ms) / 1_000) as i64;
        let by = other.offset_ms - self.offset_ms;
        if by.abs() > TOLERANCE_MS + slewed { Some(by) } else { None }
    }

    /// Goes on to where the clocks stand now.
    const fn follow(&mut self, now: &Self) {
        self.offset_ms = now.offset_ms;
        self.seen_ms = now.seen_ms;
    }
}

impl Judge {
    /// No moment before `past_ms` can be right.
    pub(super) const fn new(past_ms: u64) -> Self {
        Self {
            past_ms,
            ceiling_ms: None,
            last_trusted_ms: None,
            anchor: None,
            candidate: None,
            cloud: None,
            last: None,
        }
    }

    /// The last trusted time on disk, with its boot time if it is of this boot. A pace of this boot is taken up again if the clock still
    /// keeps it; where it does not, the disk proves nothing about the clock.
    pub(super) fn remember(&mut self, last_trusted: Option<(u64, Option<u64>)>, now: &Sample) {
        self.last_trusted_ms = last_trusted.map(|(wall_ms, _)| wall_ms);
        // Trust that was given before the disk was read is judged again.
        self.anchor = last_trusted.and_then(|(wall_ms, boot_ms)| {
            let pace = Sample {
                wall_ms,
                boot_ms: boot_ms?,
                sync: Sync::No,
            }
            .pace();
            pace.parted(&now.pace()).is_none().then_some(pace)
        });
    }

    /// The last trusted time on disk as a commit left it.
    pub(super) const fn kept(&mut self, wall_ms: Option<u64>) {
        self.last_trusted_ms = wall_ms;
    }

    /// Our own certificate ends at `ceiling_ms`.
    pub(super) const fn end_at(&mut self, ceiling_ms: u64) {
        self.ceiling_ms = Some(ceiling_ms);
    }

    /// It is later than `past_ms`, whatever the clock shows; unless that is so late that who says so must be wrong.
    pub(super) fn not_before(&mut self, past_ms: u64) {
        if past_ms > self.past_ms && self.far_ahead(past_ms).is_none() && self.is_below_ceiling(past_ms) {
            self.past_ms = past_ms;
        }
    }

    /// The verified cloud said `wall_ms` at `boot_ms`.
    pub(super) const fn cloud_said(&mut self, wall_ms: u64, boot_ms: u64) {
        self.cloud = Some(
            Sample {
                wall_ms,
                boot_ms,
                sync: Sync::No,
            }
            .pace(),
        );
    }

    /// Judges the next sample.
    pub(super) fn judge(&mut self, sample: &Sample) -> Verdict {
        let pace = sample.pace();
        let jump_ms = self.last.and_then(|last| last.parted(&pace));
        self.last = Some(pace);
        let trust = self.trust(sample, &pace);
        Verdict {
            trust,
            may_be_kept: trust.is_ok() && self.may_be_kept(sample.wall_ms, &pace),
            jump_ms,
        }
    }

    fn trust(&mut self, sample: &Sample, pace: &Pace) -> Result<TrustSource, Doubt> {
        if sample.wall_ms < self.past_ms {
            self.candidate = None;
            return Err(Doubt::Past {
                by_ms: self.past_ms - sample.wall_ms,
            });
        }
        let by_cloud = self.by_cloud(pace);
        if let Some(by_ms) = by_cloud.filter(|by| by.abs() > cloud_tolerance(self.cloud, pace)) {
            self.candidate = None;
            return Err(Doubt::CloudDisagrees { by_ms });
        }
        let agreed = by_cloud.map(|_| TrustSource::Cloud);
        let source = sample.sync.source().or(agreed);
        let Some(anchor) = &mut self.anchor else {
            return self.first(sample, pace, agreed.is_some());
        };
        let Some(by_ms) = anchor.parted(pace) else {
            anchor.follow(pace);
            self.candidate = None;
            return Ok(source.unwrap_or(TrustSource::Boot));
        };
        let anchor_since = anchor.since_ms;
        let is_step = by_ms.abs() <= STEP_MS && sample.sync.source().is_some();
        let has_stood = self.has_stood(sample, pace);
        if let Some(source) = source
            && (is_step || agreed.is_some() || has_stood)
        {
            let since_ms = self.candidate.take().map_or(anchor_since, |candidate| candidate.since_ms);
            self.anchor = Some(Pace { since_ms, ..*pace });
            return Ok(source);
        }
        Err(Doubt::Jumped { by_ms })
    }

    /// Judges while nothing is trusted yet in this boot.
    fn first(&mut self, sample: &Sample, pace: &Pace, agreed: bool) -> Result<TrustSource, Doubt> {
        let far_ahead = self.far_ahead(sample.wall_ms).filter(|_| !agreed);
        let source = match sample.sync {
            _ if agreed => TrustSource::Cloud,
            Sync::Kernel => TrustSource::Kernel,
            Sync::TimesyncFile => TrustSource::TimesyncFile,
            Sync::No | Sync::Unknown(_) => {
                self.candidate = None;
                return Err(match (far_ahead, sample.sync) {
                    (Some(by_ms), _) => Doubt::FarAhead { by_ms },
                    (None, Sync::Unknown(errno)) => Doubt::Unknown { errno },
                    (None, _) => Doubt::NotSynchronised,
                });
            }
        };
        if let Some(by_ms) = far_ahead
            && !self.has_stood(sample, pace)
        {
            return Err(Doubt::FarAhead { by_ms });
        }
        let since_ms = self.candidate.take().map_or(pace.since_ms, |candidate| candidate.since_ms);
        self.anchor = Some(Pace { since_ms, ..*pace });
        Ok(source)
    }

    /// Whether the clock has been synchronised at this pace for long enough.
    fn has_stood(&mut self, sample: &Sample, pace: &Pace) -> bool {
        if sample.sync.source().is_none() {
            self.candidate = None;
            return false;
        }
        match &mut self.candidate {
            Some(candidate) if candidate.parted(pace).is_none() => {
                candidate.follow(pace);
                pace.seen_ms.saturating_sub(candidate.since_ms) >= CONFIRM_MS
            }
            other => {
                *other = Some(*pace);
                false
            }
        }
    }

    fn far_ahead(&self, wall_ms: u64) -> Option<u64> {
        let (from, far) = match self.last_trusted_ms {
            Some(last) => (last.max(self.past_ms), FAR_MS),
            None => (self.past_ms, FAR_FROM_RELEASE_MS),
        };
        (wall_ms > from.saturating_add(far)).then(|| wall_ms - from)
    }

    /// How far the wall clock is ahead of what the cloud said.
    fn by_cloud(&self, pace: &Pace) -> Option<i64> {
        self.cloud.map(|cloud| pace.offset_ms - cloud.offset_ms)
    }

    /// Downwards whatever is trusted; upwards no further than our certificate lasts, and by days only what has stood.
    fn may_be_kept(&self, wall_ms: u64, pace: &Pace) -> bool {
        if let Some(last) = self.last_trusted_ms
            && wall_ms <= last.saturating_add(KEEP_STEP_MS)
        {
            return wall_ms <= last || self.is_below_ceiling(wall_ms);
        }
        let has_stood = self
            .anchor
            .is_some_and(|anchor| pace.seen_ms.saturating_sub(anchor.since_ms) >= CONFIRM_MS);
        (has_stood || self.cloud.is_some()) && self.is_below_ceiling(wall_ms)
    }

    fn is_below_ceiling(&self, wall_ms: u64) -> bool {
        self.ceiling_ms.is_none_or(|ceiling| wall_ms <= ceiling)
    }
}

fn cloud_tolerance(cloud: Option<Pace>, pace: &Pace) -> i64 {
    let aged = cloud.map_or(0, |cloud| pace.seen_ms.saturating_sub(cloud.seen_ms) / 5_000);
    CLOUD_TOLERANCE_MS + aged as i64
}

impl TrustSource {
    /// All of them, for a metric's labels.
    pub const ALL: [Self; 4] = [Self::Kernel, Self::TimesyncFile, Self::Cloud, Self::Boot];

    /// One word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::TimesyncFile => "timesync_file",
            Self::Cloud => "cloud",
            Self::Boot => "boot",
        }
    }
}

impl fmt::Display for TrustSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "the kernel says that it is synchronised",
            Self::TimesyncFile => "systemd-timesyncd says that it is synchronised",
            Self::Cloud => "the cloud's time agrees",
            Self::Boot => "it was trusted earlier in this boot and has kept pace since",
        })
    }
}

impl Doubt {
    /// The labels of all of them, for a metric.
    pub const LABELS: [&'static str; 6] = ["not_synchronised", "unknown", "past", "jumped", "far_ahead", "cloud_disagrees"];

    /// One word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotSynchronised => "not_synchronised",
            Self::Unknown { .. } => "unknown",
            Self::Past { .. } => "past",
            Self::Jumped { .. } => "jumped",
            Self::FarAhead { .. } => "far_ahead",
            Self::CloudDisagrees { .. } => "cloud_disagrees",
        }
    }

    /// Whether the clock is known to be wrong, or must be thought so: more than that nothing has synchronised it yet.
    #[must_use]
    pub const fn is_wrong(self) -> bool {
        !matches!(self, Self::NotSynchronised | Self::Unknown { .. })
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotSynchronised => f.write_str("nothing has synchronised it since the machine booted"),
            Self::Unknown { errno } => write!(f, "the kernel does not say whether it is synchronised (error {errno})"),
            Self::Past { by_ms } => write!(f, "it is {} behind a moment that has passed already", Span(by_ms)),
            Self::Jumped { by_ms } => write!(
                f,
                "it was set {} {} since it was last right",
                Span(by_ms.unsigned_abs()),
                way(by_ms, ("forward", "back"))
            ),
            Self::FarAhead { by_ms } => write!(f, "it is {} ahead of the latest moment that is known to have passed", Span(by_ms)),
            Self::CloudDisagrees { by_ms } => write!(
                f,
                "it is {} {} the cloud's time",
                Span(by_ms.unsigned_abs()),
                way(by_ms, ("ahead of", "behind"))
            ),
        }
    }
}

const fn way(by_ms: i64, (positive, negative): (&'static str, &'static str)) -> &'static str {
    if by_ms < 0 { negative } else { positive }
}

/// A length of time in its largest unit.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        match seconds {
            0..120 => write!(f, "{seconds} s"),
            120..7_200 => write!(f, "{} min", seconds / 60),
            7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            _ => write!(f, "{} days", seconds / 86_400),
        }
    }
}
