//! A connection's answers: they wait here for their commit, and leave in the order of their packets.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BytesMut};
use forebay_wal::Batch;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::aliases::Aliases;
use super::hub::Hub;
use super::link::{Sink, Written};
use super::writer::{report, settle, trace};
use crate::budget::{Charge, UncommittedLine};
use crate::codec::{QoS, ReasonCode, Version, encode_puback, encode_pubcomp, encode_pubrec};
use crate::commits::{Commits, Outcome};
use crate::context::Context;
use crate::fanout::{Fanout, Message};
use crate::observe::{Disconnection, TracedPublish};
use crate::refusal::{PublishAnswer, RefusedPublish};

/// Bytes of deliveries that may wait for a slow peer; more are dropped and counted (they are QoS 0).
const MAX_DELIVERY_BYTES: usize = 1 << 20;
/// Bytes of answers outside the order that may wait for a peer; beyond it, its socket is not read.
const MAX_REPLY_BYTES: usize = 64 << 10;
/// Bytes that may wait for a peer before it gets more retained messages. Those are not dropped: they wait.
const ROOM_BYTES: usize = 32 << 10;

/// Bytes that every connection may have waiting, as part of what it takes idle; the rest is charged.
const UNCHARGED_BYTES: usize = 4 << 10;
/// What is charged at once, so that the account is not asked for each message.
const CHARGE_STEP: usize = 8 << 10;

/// Bytes that the hub writes at a stretch, in the turns of all; more is left to the writer.
const MAX_FLUSH_BYTES: usize = 64 << 10;
/// Bytes of the buffer that an idle connection keeps.
pub(super) const KEPT_BYTES: usize = 256;

/// Slots whose memory an empty outbox keeps: the memory of a burst is freed.
const KEPT_PLACES: usize = 16;

/// Shared by a connection's reader, writer and deliveries, and by the hub of its thread.
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    hub: Arc<Hub>,
    /// Of all connections of its thread.
    pub(super) commits: Arc<Commits>,
    /// Woken when there is something to do that the hub does not.
    pub(super) writer: Notify,
    /// Notified when slots have become free, for a reader that waits for one.
    pub(super) room: Notify,
    /// Where publishes that are not committed yet are charged.
    pub(super) uncommitted: UncommittedLine,
    ending: CancellationToken,
    version: Version,
}

struct Inner {
    pending: VecDeque<Pending>,
    out: BytesMut,
    /// What stands behind `out`. Boxed, because most connections take no messages.
    aliases: Option<Box<Aliases>>,
    /// What `out` takes beyond [`UNCHARGED_BYTES`].
    output: Charge,
    /// There was no room for more: nothing but answers is added until the writer has taken `out`.
    is_short: bool,
    /// Packets that were added and are not counted yet.
    packets: u64,
    /// Bytes of `out` that are answers outside the order; deliveries have their own bound.
    replies: usize,
    closing: Option<Closing>,
    /// The reader has ended: no slot will be added.
    is_sealed: bool,
    /// The commit of an answer without a code for it failed: nothing is answered any more.
    is_silenced: bool,
    /// QoS 2 answers whose commit failed, until the reader has corrected its packet ids.
    failed: Vec<Answer>,
    /// The commit of a change of the session failed.
    is_change_failed: bool,
    /// The stream, while the connection has one.
    sink: Option<Arc<dyn Sink>>,
    /// It stands in the hub's list of those that wait for a batch.
    is_queued: bool,
    /// The hub was told of deliveries.
    is_told: bool,
    /// The writer has taken bytes and not sent all of them: nobody else may write.
    is_writing: bool,
    /// The stream holds back what the hub wrote.
    is_unflushed: bool,
    /// Acks that the hub wrote only in part, until the writer has sent the rest.
    carried: Option<Box<Carried>>,
}

#[derive(Default)]
struct Carried {
    acked: u64,
    oldest: Option<Instant>,
    traced: Vec<TracedPublish>,
}

/// Why and how the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    /// What is counted; `None` for the peer's own DISCONNECT.
    pub(super) cause: Option<Disconnection>,
    /// The reason of the DISCONNECT that a version 5 peer gets; `None` to close without one.
    pub(super) say: Option<ReasonCode>,
}

/// One slot of the order.
pub(super) struct Pending {
    pub(super) ready: Ready,
    pub(super) answer: Answer,
    /// The QoS of its publish; `None` if it answers another packet.
    pub(super) publish: Option<QoS>,
    /// A publish that is in no batch; it goes to local subscribers when the slot leaves.
    pub(super) fanout: Option<Box<Message>>,
    /// When its packet was read.
    pub(super) since: Instant,
    /// Bytes to return to the shared budget.
    pub(super) budget: usize,
    /// The trace of its publish.
    pub(super) trace: Option<Box<TracedPublish>>,
}

/// When a slot may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Now,
    After(Batch),
    At(Instant),
}

/// What is sent for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    PubAck(NonZeroU16, ReasonCode),
    PubRec(NonZeroU16, ReasonCode),
    PubComp(NonZeroU16, ReasonCode),
}

/// What [`Outbox::release`] returns.
#[derive(Default)]
pub(super) struct Released {
    pub(super) bytes: BytesMut,
    /// What `bytes` are charged as, until they are sent.
    pub(super) output: Option<Charge>,
    /// Something written before has to leave the stream.
    pub(super) is_unflushed: bool,
    /// Acks with success, and since when the oldest of them waited.
    pub(super) acked: u64,
    pub(super) oldest: Option<Instant>,
    /// The QoS of each publish whose batch failed.
    pub(super) failed: Vec<QoS>,
    pub(super) budget: usize,
    /// Packets that leave with it, or were added since the last time.
    pub(super) packets: u64,
    /// Traced publishes that have left.
    pub(super) traced: Vec<TracedPublish>,
    /// When the next slot may leave without a commit.
    pub(super) next: Option<Instant>,
    /// Nothing is pending and the connection is to end.
    pub(super) finished: Option<Closing>,
}

impl Inner {
    /// What `out` still has to be charged.
    fn uncharged(&self) -> u64 {
        let needed = self.out.len().saturating_sub(UNCHARGED_BYTES).next_multiple_of(CHARGE_STEP) as u64;
        needed.saturating_sub(self.output.amount())
    }

    /// Charges an answer. It cannot be dropped, so a bound that is reached keeps the next packets from being read.
    fn charge_answer(&mut self) {
        let missing = self.uncharged();
        if missing > 0 && self.output.grow(missing).is_err() {
            self.output.force(missing);
            self.is_short = true;
        }
    }

    /// The batch of the oldest slot that waits for one.
    fn oldest_batch(&self) -> Option<Batch> {
        self.pending.iter().find_map(|slot| match slot.ready {
            Ready::After(batch) => Some(batch),
            Ready::Now | Ready::At(_) => None,
        })
    }

    /// The stream, if the hub may write to it now.
    fn free_sink(&self) -> Option<Arc<dyn Sink>> {
        let is_free = !self.is_writing && !self.is_unflushed && !self.is_sealed && self.closing.is_none();
        self.sink.clone().filter(|_| is_free && self.out.len() <= MAX_FLUSH_BYTES)
    }

    /// Keeps what the stream did not take for the writer, and charges that alone.
    fn keep_rest(&mut self, mut bytes: BytesMut, written: Written, released: &mut Released) {
        bytes.advance(written.bytes);
        self.is_unflushed = !written.is_flushed;
        self.replies = self.replies.min(bytes.len());
        self.out = bytes;
        self.output.shrink(u64::MAX);
        self.charge_answer();
        let carried = self.carried.get_or_insert_default();
        carried.acked += std::mem::take(&mut released.acked);
        carried.oldest = carried.oldest.into_iter().chain(released.oldest.take()).min();
        carried.traced.append(&mut released.traced);
    }
}

impl Outbox {
    /// `ending` is cancelled when the connection is to end, by this outbox or from outside. What waits for the peer is added
    /// to `output`, and what is not committed is charged to `uncommitted`.
    pub(super) fn new(version: Version, ending: CancellationToken, output: Charge, uncommitted: UncommittedLine, hub: Arc<Hub>) -> Self {
        let inner = Inner {
            pending: VecDeque::new(),
            out: BytesMut::new(),
            aliases: None,
            output,
            is_short: false,
            packets: 0,
            replies: 0,
            closing: None,
            is_sealed: false,
            is_silenced: false,
            failed: Vec::new(),
            is_change_failed: false,
            sink: None,
            is_queued: false,
            is_told: false,
            is_writing: false,
            is_unflushed: false,
            carried: None,
        };
        Self {
            inner: Mutex::new(inner),
            commits: Arc::clone(&hub.commits),
            hub,
            writer: Notify::new(),
            room: Notify::new(),
            uncommitted,
            ending,
            version,
        }
    }

    /// The stream is open; `None` when it is not any more.
    pub(super) fn connect(&self, sink: Option<Arc<dyn Sink>>) {
        self.lock().sink = sink;
    }

    /// The peer takes aliases up to this one.
    pub(super) fn allow_aliases(&self, maximum: u16) {
        if maximum > 0 {
            self.lock().aliases = Some(Box::new(Aliases::new(maximum)));
        }
    }

    /// Adds a slot at the end of the order. The hub lets it go when its commit has ended, or the writer if none is waited for.
    pub(super) fn push(self: &Arc<Self>, pending: Pending) {
        let ready = pending.ready;
        let mut inner = self.lock();
        inner.pending.push_back(pending);
        if inner.is_queued {
            // It goes with the commit that an earlier one waits for, or is waited for then.
            return;
        }
        match ready {
            Ready::After(batch) => {
                inner.is_queued = true;
                self.hub.wait_for(batch, self);
            }
            Ready::Now | Ready::At(_) => {
                drop(inner);
                self.wake();
            }
        }
    }

    /// Lets go what may leave now that a batch has ended, and writes it if the stream takes it at once. Called by the hub. Returns the
    /// batch that a slot still waits for.
    pub(super) fn flush_commits(self: &Arc<Self>, context: &Context, scratch: &mut BytesMut) -> Option<Batch> {
        self.flush(context, scratch);
        let mut inner = self.lock();
        let oldest = inner.oldest_batch();
        inner.is_queued = oldest.is_some();
        oldest
    }

    /// Writes deliveries if the stream takes them at once. Called by the hub.
    pub(super) fn flush_deliveries(self: &Arc<Self>, context: &Context, scratch: &mut BytesMut) -> Option<Batch> {
        self.lock().is_told = false;
        self.flush(context, scratch);
        None
    }

    fn flush(&self, context: &Context, scratch: &mut BytesMut) {
        let mut inner = self.lock();
        if inner.is_writing {
            // The writer looks again when it has written.
            return;
        }
        let Some(sink) = inner.free_sink() else {
            drop(inner);
            self.wake();
            return;
        };
        // Deliveries are written from where they are; acks alone need no memory of the connection's own.
        let has_own = !inner.out.is_empty();
        let bytes = std::mem::take(if has_own { &mut inner.out } else { scratch });
        let mut released = Released {
            bytes,
            ..Released::default()
        };
        self.let_go(&context.fanout, &mut inner, &mut released);
        let mut bytes = std::mem::take(&mut released.bytes);
        let mut is_written = false;
        let mut lost = false;
        let mut output = None;
        if !bytes.is_empty() {
            match sink.write_now(&bytes) {
                Ok(written) if written.bytes == bytes.len() && written.is_flushed => {
                    is_written = true;
                    inner.replies = 0;
                    inner.is_short = false;
                    output = (inner.output.amount() > 0).then(|| inner.output.take());
                }
                Ok(written) => inner.keep_rest(std::mem::take(&mut bytes), written, &mut released),
                Err(_) => lost = true,
            }
        }
        bytes.clear();
        if !has_own {
            *scratch = bytes;
        } else if inner.out.is_empty() && bytes.capacity() <= KEPT_BYTES {
            inner.out = bytes;
        }
        let needs_writer = !inner.out.is_empty() || inner.is_unflushed || released.next.is_some() || inner.closing.is_some();
        drop(inner);
        drop(output);
        self.room.notify_one();
        settle(&released, self, context);
        if is_written {
            report(&released, context);
        }
        trace(&mut released, is_written, context);
        if lost {
            self.close(Closing::silently(Disconnection::ConnectionLost));
        } else if needs_writer {
            self.wake();
        }
    }

    /// Ends the connection without another answer, after a fault of ours. Its writer takes out what is left.
    pub(super) fn give_up(self: &Arc<Self>) {
        let mut inner = self.lock();
        inner.is_silenced = true;
        inner.is_told = false;
        let oldest = inner.oldest_batch();
        inner.is_queued = oldest.is_some();
        drop(inner);
        self.close(Closing::silently(Disconnection::ConnectionLost));
        if let Some(batch) = oldest {
            self.hub.wait_for(batch, self);
        }
    }

    /// Wakes the writer.
    pub(super) fn wake(&self) {
        self.writer.notify_one();
    }

    /// The protocol version of its peer.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Slots in use.
    pub(super) fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// Whether the peer reads its answers so slowly that no more of its packets should be taken.
    pub(super) fn is_clogged(&self) -> bool {
        let inner = self.lock();
        inner.replies > if inner.is_short { UNCHARGED_BYTES } else { MAX_REPLY_BYTES }
    }

    /// The QoS 2 answers whose commit failed since the last call. Called by the reader before it looks at a packet id.
    pub(super) fn take_failed(&self) -> Vec<Answer> {
        std::mem::take(&mut self.lock().failed)
    }

    /// Whether the commit of a change of the session has failed since the last call.
    pub(super) fn take_change_failed(&self) -> bool {
        std::mem::take(&mut self.lock().is_change_failed)
    }

    /// Sends an answer outside the order: PINGRESP, SUBACK.
    pub(super) fn send(&self, write: impl FnOnce(&mut BytesMut)) {
        let mut inner = self.lock();
        let before = inner.out.len();
        write(&mut inner.out);
        inner.packets += 1;
        inner.replies += inner.out.len() - before;
        inner.charge_answer();
        drop(inner);
        self.wake();
    }

    /// Sends a delivery; false if it was dropped because too much is unread, by this peer, its identity or all.
    pub(super) fn deliver(self: &Arc<Self>, write: impl FnOnce(Option<&mut Aliases>, &mut BytesMut)) -> bool {
        let mut inner = self.lock();
        if inner.out.len() > MAX_DELIVERY_BYTES || inner.is_short {
            return false;
        }
        let before = (inner.out.len(), inner.aliases.as_ref().map_or(0, |aliases| aliases.len()));
        let Inner { out, aliases, .. } = &mut *inner;
        write(aliases.as_deref_mut(), out);
        let missing = inner.uncharged();
        if missing > 0 && inner.output.grow(missing).is_err() {
            inner.out.truncate(before.0);
            if let Some(aliases) = &mut inner.aliases {
                aliases.truncate(before.1);
            }
            inner.is_short = true;
            return false;
        }
        inner.packets += 1;
        let is_told = std::mem::replace(&mut inner.is_told, true);
        drop(inner);
        if !is_told {
            self.hub.tell(self);
        }
        true
    }

    /// Whether the peer has read so much that it may get more retained messages.
    pub(super) fn has_room(&self) -> bool {
        let inner = self.lock();
        inner.out.len() < if inner.is_short { UNCHARGED_BYTES } else { ROOM_BYTES }
    }

    /// Sends a retained message if `is_current`, and returns that. No delivery comes between the check and the message.
    pub(super) fn deliver_if(&self, is_current: impl FnOnce() -> bool, write: impl FnOnce(Option<&mut Aliases>, &mut BytesMut)) -> bool {
        let mut inner = self.lock();
        let is_current = is_current();
        if is_current {
            let Inner { out, aliases, .. } = &mut *inner;
            write(aliases.as_deref_mut(), out);
            inner.packets += 1;
            inner.charge_answer();
        }
        drop(inner);
        self.wake();
        is_current
    }

    /// Asks for the end. The first cause is kept.
    pub(super) fn close(&self, closing: Closing) {
        self.lock().closing.get_or_insert(closing);
        self.ending.cancel();
        self.wake();
    }

    /// The reader adds no slot any more. Once all slots have left, the connection is finished.
    pub(super) fn seal(&self, closing: Closing) {
        self.lock().is_sealed = true;
        self.close(closing);
    }

    /// Waits for the connection's end.
    pub(super) async fn closed(&self) {
        self.ending.cancelled().await;
    }

    /// The token of the connection's end, for a long wait.
    pub(super) fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    /// Why the connection is ending; `None` if it is not.
    pub(super) fn closing(&self) -> Option<Closing> {
        self.lock().closing
    }

    /// Takes out all slots that may leave now, from the front, so in order. Called by the writer, which sends the bytes before it
    /// calls this again.
    ///
    /// `bytes` is the buffer of the last call, used again.
    pub(super) fn release(self: &Arc<Self>, fanout: &Fanout, mut bytes: BytesMut) -> Released {
        bytes.clear();
        let mut inner = self.lock();
        let carried = inner.carried.take().map(|carried| *carried).unwrap_or_default();
        let mut released = Released {
            bytes: std::mem::replace(&mut inner.out, bytes),
            output: (inner.output.amount() > 0).then(|| inner.output.take()),
            is_unflushed: std::mem::take(&mut inner.is_unflushed),
            acked: carried.acked,
            oldest: carried.oldest,
            traced: carried.traced,
            ..Released::default()
        };
        inner.replies = 0;
        inner.is_short = false;
        self.let_go(fanout, &mut inner, &mut released);
        inner.is_writing = !released.bytes.is_empty() || released.is_unflushed;
        if !inner.is_queued
            && let Some(batch) = inner.oldest_batch()
        {
            inner.is_queued = true;
            self.hub.wait_for(batch, self);
        }
        drop(inner);
        self.room.notify_one();
        released
    }

    fn let_go(&self, fanout: &Fanout, inner: &mut Inner, released: &mut Released) {
        while let Some(front) = inner.pending.front() {
            let outcome = match front.ready {
                Ready::Now => Outcome::Committed,
                Ready::After(batch) => match self.commits.outcome(batch) {
                    Some(outcome) => outcome,
                    None => break,
                },
                // A connection that ends does not wait for delayed answers.
                Ready::At(at) if at > Instant::now() && !inner.is_sealed => {
                    released.next = Some(at);
                    break;
                }
                Ready::At(_) => Outcome::Committed,
            };
            let Some(mut done) = inner.pending.pop_front() else { break };
            released.budget += done.budget;
            if let Some(mut trace) = done.trace.take() {
                trace.read = done.since.into_std();
                trace.committed = (outcome == Outcome::Committed).then(std::time::Instant::now);
                released.traced.push(*trace);
            }
            match outcome {
                Outcome::Committed => {
                    if !inner.is_silenced {
                        inner.packets += u64::from(done.answer != Answer::Nothing);
                        self.answer(&done, released);
                    }
                    if let Some(message) = done.fanout {
                        fanout.publish(self.commits.latest_committed(), *message);
                    }
                }
                Outcome::Failed => {
                    released.failed.extend(done.publish);
                    self.refuse(&done, released, inner);
                }
            }
        }
        released.packets = std::mem::take(&mut inner.packets);
        if inner.closing.is_some() {
            self.ending.cancel();
        }
        if inner.pending.is_empty() && inner.pending.capacity() > KEPT_PLACES {
            inner.pending = VecDeque::new();
        }
        if inner.pending.is_empty() && inner.is_sealed {
            released.finished = inner.closing;
        }
    }

    fn answer(&self, done: &Pending, released: &mut Released) {
        self.write(done.answer, &mut released.bytes);
        if let Answer::PubAck(_, reason) | Answer::PubRec(_, reason) = done.answer
            && !reason.is_error()
        {
            released.acked += 1;
            released.oldest = Some(released.oldest.map_or(done.since, |oldest| oldest.min(done.since)));
        }
    }

    /// A publish whose commit failed is not acked. PUBCOMP has no code for it, so a failed release ends the connection on
    /// both versions.
    fn refuse(&self, done: &Pending, released: &mut Released, inner: &mut Inner) {
        if let Answer::PubRec(..) | Answer::PubComp(..) = done.answer {
            inner.failed.push(done.answer);
        }
        inner.is_change_failed |= done.answer == Answer::Nothing && done.publish.is_none();
        if inner.is_silenced || done.answer == Answer::Nothing {
            return;
        }
        let failed = RefusedPublish::CommitFailed;
        match (done.answer, failed.answer(self.version, QoS::AtLeastOnce)) {
            (Answer::PubAck(id, _), PublishAnswer::Code(code)) => self.write(Answer::PubAck(id, code), &mut released.bytes),
            (Answer::PubRec(id, _), PublishAnswer::Code(code)) => self.write(Answer::PubRec(id, code), &mut released.bytes),
            _ => {
                inner.is_silenced = true;
                inner.closing.get_or_insert(Closing {
                    cause: Some(failed.disconnection()),
                    say: Some(failed.code()),
                });
            }
        }
    }

    fn write(&self, answer: Answer, out: &mut BytesMut) {
        let result = match answer {
            Answer::Nothing => Ok(()),
            Answer::PubAck(id, reason) => encode_puback(out, self.version, id, reason),
            Answer::PubRec(id, reason) => encode_pubrec(out, self.version, id, reason),
            Answer::PubComp(id, reason) => {
                encode_pubcomp(out, self.version, id, reason);
                Ok(())
            }
        };
        // On 3.1.1 an ack has no code for a refusal; the callers never ask for one.
        debug_assert!(result.is_ok(), "{answer:?} cannot be said on {}", self.version);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
