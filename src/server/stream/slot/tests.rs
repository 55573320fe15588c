// SPDX-License-Identifier: MPL-2.0

use proptest::prelude::*;

use super::*;
use crate::server::events::PublisherEvent;
use crate::server::stream::fan_out::{Effect, fan_out};
use crate::server::stream::queue::QueueEvent;

/// Handles are the ids of their clients.
type TestSlot = Slot<u64>;

const SECOND: Duration = Duration::from_secs(1);

const STAYS: Terms = Terms {
    keep_listening: true,
    resume_timeout: SECOND,
};
const ENDS: Terms = Terms {
    keep_listening: false,
    resume_timeout: Duration::ZERO,
};

const STALLED: Liveness = Liveness::Open {
    is_stalled: true,
    is_proven: false,
};
const UNPROVEN: Liveness = Liveness::Open {
    is_stalled: false,
    is_proven: false,
};
const PROVEN: Liveness = Liveness::Open {
    is_stalled: false,
    is_proven: true,
};

fn publisher(client: u64) -> Arc<Publisher> {
    Arc::new(Publisher::example(client))
}

fn occupied(client: u64) -> TestSlot {
    let mut slot = TestSlot::default();
    slot.accept(publisher(client), client);
    slot
}

fn state_of(slot: &TestSlot) -> &'static str {
    match slot.state {
        SlotState::Empty => "Empty",
        SlotState::Active(_) => "Active",
        SlotState::AwaitingReturn { .. } => "AwaitingReturn",
        SlotState::Ended => "Ended",
    }
}

#[test]
fn contenders_are_judged_by_policy_and_sign_of_life() {
    use Admission::{Accept, AwaitDeparture, AwaitProof, Reject};
    let busy = Reject(RejectReason::Busy);
    let slot = occupied(1);
    for (policy, liveness, expected) in [
        (Policy::Reject, Liveness::Closing, AwaitDeparture),
        (Policy::Reject, STALLED, AwaitProof),
        (Policy::Reject, UNPROVEN, AwaitProof),
        (Policy::Reject, PROVEN, busy),
        (Policy::Replace, Liveness::Closing, AwaitDeparture),
        (Policy::Replace, STALLED, Accept),
        (Policy::Replace, UNPROVEN, Accept),
        (Policy::Replace, PROVEN, Accept),
        (Policy::ReplaceStalled, Liveness::Closing, AwaitDeparture),
        (Policy::ReplaceStalled, STALLED, Accept),
        (Policy::ReplaceStalled, UNPROVEN, AwaitProof),
        (Policy::ReplaceStalled, PROVEN, busy),
    ] {
        let admission = slot.offer(&STAYS, policy, |_| liveness);
        assert_eq!(admission, expected, "{policy:?} {liveness:?}");
    }
}

#[test]
fn a_contender_of_a_slot_without_publisher_is_judged_by_state() {
    let now = Instant::now();
    let offer = |slot: &TestSlot, terms| slot.offer(terms, Policy::Reject, |_| PROVEN);
    let mut slot = TestSlot::default();
    assert_eq!(offer(&slot, &STAYS), Admission::Accept);
    slot.accept(publisher(1), 1);
    slot.unpublish(1);
    assert_eq!(offer(&slot, &STAYS), Admission::Accept);
    let ended = Admission::Reject(RejectReason::Ended);
    assert_eq!(offer(&slot, &ENDS), ended);
    slot.leave(1, RemovalReason::Closed, &ENDS, now);
    assert_eq!(offer(&slot, &STAYS), ended);

    let mut slot = occupied(1);
    slot.leave(1, RemovalReason::Closed, &STAYS, now);
    assert_eq!(offer(&slot, &STAYS), Admission::Accept);
    slot.drain(SECOND, now);
    let draining = Admission::Reject(RejectReason::Draining);
    assert_eq!(offer(&slot, &STAYS), draining);
}

#[test]
fn transitions_lead_to_their_states() {
    let now = Instant::now();
    let (closed, unpublished) = (RemovalReason::Closed, RemovalReason::Unpublished);
    for (terms, reason, expected) in [
        (STAYS, closed, "AwaitingReturn"),
        (STAYS, unpublished, "Empty"),
        (ENDS, closed, "Ended"),
        (ENDS, unpublished, "Ended"),
    ] {
        let mut slot = occupied(1);
        slot.leave(1, reason, &terms, now);
        assert_eq!(state_of(&slot), expected, "{terms:?} {reason:?}");
    }
    // A loss after the end of the stream is none.
    let mut slot = occupied(1);
    slot.unpublish(1);
    slot.leave(1, closed, &STAYS, now);
    assert_eq!(state_of(&slot), "Empty");
    // A publisher that was replaced leaves no trace.
    let mut slot = occupied(1);
    slot.accept(publisher(2), 2);
    assert_eq!(slot.leave(1, closed, &STAYS, now), []);
    assert_eq!(state_of(&slot), "Active");
}

#[test]
fn deadlines_follow_the_settings_of_the_moment() {
    let now = Instant::now();
    let mut slot = occupied(1);
    assert_eq!(slot.deadline(&STAYS), None);
    slot.leave(1, RemovalReason::Closed, &STAYS, now);
    assert_eq!(slot.deadline(&STAYS), Some(now + SECOND));
    let longer = Terms {
        resume_timeout: 9 * SECOND,
        ..STAYS
    };
    assert_eq!(slot.time_out(&longer, now + SECOND), []);
    assert_eq!(slot.time_out(&STAYS, now + SECOND).len(), 1);
    assert_eq!(state_of(&slot), "Empty");

    let mut slot = occupied(1);
    assert_eq!(
        slot.drain(9 * SECOND, now),
        [Change::AskedToReconnect { handle: 1 }]
    );
    assert_eq!(slot.drain(2 * SECOND, now + SECOND), []);
    assert_eq!(slot.deadline(&STAYS), Some(now + 2 * SECOND));
    let changes = slot.time_out(&STAYS, now + 2 * SECOND);
    assert_eq!(changes, [Change::Expired { handle: 1 }]);
}

#[derive(Debug, Clone, Copy)]
enum Input {
    /// A contender, accepted where the slot allows it.
    Offer(Policy, Liveness),
    /// Input of the publisher before the present one where `stale`.
    Unpublish {
        stale: bool,
    },
    Leave {
        stale: bool,
        reason: RemovalReason,
    },
    CancelReturn,
    Wait(u32),
    Drain,
    StopDraining,
    End,
    Close,
    KeepListening(bool),
    ResumeTimeout(u32),
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let policies = [Policy::Reject, Policy::Replace, Policy::ReplaceStalled];
    let lives = [Liveness::Closing, STALLED, PROVEN, UNPROVEN];
    let reasons = [
        RemovalReason::Closed,
        RemovalReason::Timeout,
        RemovalReason::Violation,
        RemovalReason::Unpublished,
        RemovalReason::Disconnected,
        RemovalReason::Drained,
    ];
    let offer = (
        prop::sample::select(policies.to_vec()),
        prop::sample::select(lives.to_vec()),
    );
    let leave = (any::<bool>(), prop::sample::select(reasons.to_vec()));
    let input = prop_oneof![
        6 => offer.prop_map(|(policy, liveness)| Input::Offer(policy, liveness)),
        2 => any::<bool>().prop_map(|stale| Input::Unpublish { stale }),
        4 => leave.prop_map(|(stale, reason)| Input::Leave { stale, reason }),
        1 => Just(Input::CancelReturn),
        3 => (0..3000u32).prop_map(Input::Wait),
        1 => Just(Input::Drain),
        1 => Just(Input::StopDraining),
        1 => Just(Input::End),
        1 => Just(Input::Close),
        1 => any::<bool>().prop_map(Input::KeepListening),
        1 => (0..2000u32).prop_map(Input::ResumeTimeout),
    ];
    prop::collection::vec(input, 0..60)
}

/// The slot with the observers of its effects.
struct Run {
    slot: TestSlot,
    terms: Terms,
    now: Instant,
    clients: u64,
    effects: Vec<Effect<u64>>,
}

impl Run {
    fn client(&self, stale: bool) -> u64 {
        self.clients - u64::from(stale && self.clients > 0)
    }

    fn apply(&mut self, input: Input) {
        let changes = match input {
            Input::Offer(policy, liveness) => {
                match self.slot.offer(&self.terms, policy, |_| liveness) {
                    Admission::Accept => {
                        self.clients += 1;
                        let client = self.clients;
                        self.slot.accept(publisher(client), client)
                    }
                    _ => Vec::new(),
                }
            }
            Input::Unpublish { stale } => {
                self.slot.unpublish(self.client(stale));
                Vec::new()
            }
            Input::Leave { stale, reason } => {
                let client = self.client(stale);
                self.slot.leave(client, reason, &self.terms, self.now)
            }
            Input::CancelReturn => self.slot.cancel_return(&self.terms),
            Input::Wait(millis) => {
                self.now += Duration::from_millis(millis.into());
                self.slot.time_out(&self.terms, self.now)
            }
            Input::Drain => self.slot.drain(SECOND, self.now),
            Input::StopDraining => {
                self.slot.stop_draining();
                Vec::new()
            }
            Input::End => {
                let client = self.client(false);
                let reason = RemovalReason::Disconnected;
                let mut changes = self.slot.leave(client, reason, &self.terms, self.now);
                changes.extend(self.slot.end_vacant());
                changes
            }
            Input::Close => self.slot.close(),
            Input::KeepListening(keep_listening) => {
                self.terms.keep_listening = keep_listening;
                Vec::new()
            }
            Input::ResumeTimeout(millis) => {
                self.terms.resume_timeout = Duration::from_millis(millis.into());
                Vec::new()
            }
        };
        self.effects.extend(changes.into_iter().flat_map(fan_out));
    }
}

/// State of the streaming thread after the items so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Idle,
    /// With whether the publisher's end has been announced.
    Streaming {
        client: u64,
        gone: bool,
    },
    Lost {
        client: u64,
        gone: bool,
    },
    Ended,
}

fn check_queue(effects: &[Effect<u64>], stopped: bool) -> Result<(), TestCaseError> {
    let mut reader = Reader::Idle;
    for effect in effects {
        reader = match (effect, reader) {
            (Effect::Start(publisher, _), Reader::Idle) => Reader::Streaming {
                client: publisher.client,
                gone: false,
            },
            // A successor without an end between them: the one before is gone by then.
            (
                Effect::Start(publisher, _),
                Reader::Streaming { gone: true, .. } | Reader::Lost { gone: true, .. },
            ) => Reader::Streaming {
                client: publisher.client,
                gone: false,
            },
            (
                Effect::Lose,
                Reader::Streaming {
                    client,
                    gone: false,
                },
            ) => Reader::Lost {
                client,
                gone: false,
            },
            (
                Effect::Event(QueueEvent::Gone(publisher, _)),
                Reader::Streaming {
                    client,
                    gone: false,
                },
            ) if publisher.client == client => Reader::Streaming { client, gone: true },
            (
                Effect::Event(QueueEvent::Gone(publisher, _)),
                Reader::Lost {
                    client,
                    gone: false,
                },
            ) if publisher.client == client => Reader::Lost { client, gone: true },
            (Effect::End { is_last: true }, Reader::Idle) => Reader::Ended,
            (
                Effect::End { is_last },
                Reader::Streaming { gone: true, .. } | Reader::Lost { gone: true, .. },
            ) => match is_last {
                true => Reader::Ended,
                false => Reader::Idle,
            },
            (
                Effect::Start(..)
                | Effect::Lose
                | Effect::End { .. }
                | Effect::Event(QueueEvent::Gone(..)),
                reader,
            ) => return Err(TestCaseError::fail(format!("{effect:?} while {reader:?}"))),
            (_, reader) => reader,
        };
    }
    let is_done = matches!(reader, Reader::Idle | Reader::Ended);
    prop_assert!(is_done || stopped, "{reader:?} at the end");
    Ok(())
}

/// For each publisher one Added and later one Removed, and never two publishers at a time.
fn check_events(effects: &[Effect<u64>]) -> Result<(), TestCaseError> {
    let mut present = None;
    let mut seen = std::collections::HashSet::new();
    for effect in effects {
        match effect {
            Effect::Dispatch(PublisherEvent::Added(publisher)) => {
                prop_assert_eq!(present, None);
                prop_assert!(seen.insert(publisher.client));
                present = Some(publisher.client);
            }
            Effect::Dispatch(PublisherEvent::Removed(publisher, _)) => {
                prop_assert_eq!(present, Some(publisher.client));
                present = None;
            }
            _ => {}
        }
    }
    prop_assert_eq!(present, None, "still present at the end");
    Ok(())
}

proptest! {
    #![proptest_config(properties::cases(256))]

    #[test]
    fn any_inputs_give_one_publisher_at_most_and_matching_effects(
        inputs in inputs(),
        keep_listening in any::<bool>(),
    ) {
        let mut run = Run {
            slot: TestSlot::default(),
            terms: Terms { keep_listening, resume_timeout: SECOND },
            now: Instant::now(),
            clients: 0,
            effects: Vec::new(),
        };
        for input in inputs {
            run.apply(input);
        }
        let before_stop = run.effects.len();
        run.apply(Input::Close);
        let stopped = run.effects.iter().any(|effect| {
            matches!(effect, Effect::Disconnect(_, RemovalReason::Stopped))
        });
        let was_lost = run.effects[..before_stop].iter().rev().find_map(|effect| match effect {
            Effect::Lose => Some(true),
            Effect::Start(..) | Effect::End { .. } => Some(false),
            _ => None,
        });
        check_queue(&run.effects, stopped || was_lost == Some(true))?;
        check_events(&run.effects)?;
        prop_assert!(run.slot.active().is_none());
    }
}
