//! The calls that are out on one link, by the number that stands for the client's id.
//!
//! The number names a slot and the generation of its use, so an answer that comes after its call was given up finds nobody. It stays below
//! 2^53: servers that read numbers as doubles give it back as it was.

use std::rc::Rc;

use super::{Owner, Permit, Ticket};

/// Bits of the number that name the slot.
const SLOT_BITS: u32 = 20;

/// Bits that name the generation.
const GENERATION_BITS: u32 = 32;

/// One call that is out.
pub(super) struct Out {
    pub(super) owner: Rc<dyn Owner>,
    pub(super) ticket: Ticket,
    /// The last time something was heard of it; a call without an end has none.
    heard_ms: Option<u64>,
    /// A call without an end gives it back once it is heard of: from then on it is no call that is waited for, but a stream that stays.
    pub(super) permit: Option<Permit>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    out: Option<Out>,
}

/// The calls that are out.
#[derive(Default)]
pub(super) struct Pending {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Pending {
    /// Enters a call; `None` where no more can be told apart. A call that is `endless` has no deadline.
    pub(super) fn enter(
        &mut self,
        owner: Rc<dyn Owner>,
        ticket: Ticket,
        now_ms: u64,
        endless: bool,
        permit: Permit,
    ) -> Option<u64> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() >= 1 << SLOT_BITS => return None,
            None => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len().saturating_sub(1)).ok()?
            }
        };
        let entry = self.slots.get_mut(slot as usize)?;
        entry.out = Some(Out { owner, ticket, heard_ms: (!endless).then_some(now_ms), permit: Some(permit) });
        Some((u64::from(entry.generation) << SLOT_BITS) | u64::from(slot))
    }

    /// Takes a call off.
    pub(super) fn take(&mut self, number: u64) -> Option<Out> {
        let slot = slot_of(number)?;
        let entry = self.slots.get_mut(slot as usize)?;
        if generation_of(number) != u64::from(entry.generation) {
            return None;
        }
        let out = entry.out.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        Some(out)
    }

    /// A call that is out and of which something was heard now.
    pub(super) fn hear(&mut self, number: u64, now_ms: u64) -> Option<&Out> {
        let entry = self.slots.get_mut(slot_of(number)? as usize)?;
        if generation_of(number) != u64::from(entry.generation) {
            return None;
        }
        let out = entry.out.as_mut()?;
        match &mut out.heard_ms {
            Some(heard_ms) => *heard_ms = now_ms,
            None => drop(out.permit.take()),
        }
        Some(out)
    }

    /// Takes the calls off of which nothing was heard for `timeout_ms`. Looks at every slot: as many as were ever out at once.
    pub(super) fn take_overdue(&mut self, now_ms: u64, timeout_ms: u64) -> Vec<(u64, Out)> {
        let is_late = |out: &Out| out.heard_ms.is_some_and(|heard_ms| now_ms.saturating_sub(heard_ms) >= timeout_ms);
        let late = self.numbers(is_late);
        late.into_iter().filter_map(|number| Some((number, self.take(number)?))).collect()
    }

    /// Takes all off.
    pub(super) fn take_all(&mut self) -> Vec<Out> {
        let all = self.numbers(|_| true);
        all.into_iter().filter_map(|number| self.take(number)).collect()
    }

    fn numbers(&self, wanted: impl Fn(&Out) -> bool) -> Vec<u64> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.out.as_ref().is_some_and(&wanted))
            .map(|(at, slot)| (u64::from(slot.generation) << SLOT_BITS) | at as u64)
            .collect()
    }
}

fn slot_of(number: u64) -> Option<u32> {
    u32::try_from(number & ((1 << SLOT_BITS) - 1)).ok()
}

fn generation_of(number: u64) -> u64 {
    let generation = number >> SLOT_BITS;
    // A number with bits above is none of ours, whatever its lower bits say.
    if generation >> GENERATION_BITS == 0 { generation } else { u64::MAX }
}
