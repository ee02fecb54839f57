//! The calls that one connection has in flight, and whether an answer belongs to one of them.

use super::super::small_call;

/// A window of calls. The id of a call says which place of the window it has, so that an answer is looked up with one comparison, in whatever
/// order the answers come.
pub(crate) struct Flight {
    /// The id that is in flight in each place; 0 where none is.
    places: Vec<u64>,
    /// How many calls have been begun in each place.
    turns: Vec<u64>,
    free: Vec<usize>,
}

/// An answer that belongs to no call in flight.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is not the answer to a small call.
    Answer,
    /// Nothing with this id is in flight.
    Id(u64),
}

impl Flight {
    /// Room for `window` calls at a time.
    pub(crate) fn new(window: usize) -> Self {
        Self { places: vec![0; window], turns: vec![0; window], free: (0..window).rev().collect() }
    }

    /// How many calls are in flight.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Begins a call; `None` while the window is full. Never 0, never the same id twice.
    pub(crate) fn begin(&mut self) -> Option<u64> {
        let place = self.free.pop()?;
        let window = self.places.len() as u64;
        let turn = self.turns.get_mut(place)?;
        *turn += 1;
        let id = *turn * window + place as u64;
        *self.places.get_mut(place)? = id;
        Some(id)
    }

    /// Takes the call off that `message` answers.
    pub(crate) fn end(&mut self, message: &[u8]) -> Result<(), Wrong> {
        let id = small_call::answered_id(message).ok_or(Wrong::Answer)?;
        let place = usize::try_from(id % self.places.len() as u64).unwrap_or(usize::MAX);
        match self.places.get_mut(place) {
            Some(in_flight) if *in_flight == id && id != 0 => {
                *in_flight = 0;
                self.free.push(place);
                Ok(())
            }
            _ => Err(Wrong::Id(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u64) -> Vec<u8> {
        let mut out = Vec::new();
        small_call::write_answer(&mut out, id.to_string().as_bytes());
        out
    }

    #[test]
    fn answers_may_come_in_any_order_but_once_each() {
        let mut flight = Flight::new(4);
        let mut ids: Vec<u64> = std::iter::from_fn(|| flight.begin()).collect();
        assert_eq!((ids.len(), flight.len(), flight.begin()), (4, 4, None));
        ids.swap(0, 3);
        for id in &ids {
            assert_eq!(flight.end(&answer(*id)), Ok(()));
            assert_eq!(flight.end(&answer(*id)), Err(Wrong::Id(*id)), "twice");
        }
        assert_eq!(flight.len(), 0);
        let again: Vec<u64> = std::iter::from_fn(|| flight.begin()).collect();
        assert!(again.iter().all(|id| !ids.contains(id)), "an id was used twice");
    }

    #[test]
    fn an_answer_to_nothing_is_wrong() {
        let mut flight = Flight::new(4);
        assert_eq!(flight.end(&answer(0)), Err(Wrong::Id(0)), "an empty place has no id");
        let id = flight.begin().unwrap_or_default();
        assert_eq!(flight.end(&answer(id + 4)), Err(Wrong::Id(id + 4)), "of the next turn");
        assert_eq!(flight.end(&answer(id + 1)), Err(Wrong::Id(id + 1)), "of another place");
        assert_eq!(flight.end(b"{\"jsonrpc\":\"2.0\",\"id\":4,\"error\":{\"code\":-32000}}"), Err(Wrong::Answer));
        assert_eq!(flight.end(&answer(id)), Ok(()));
    }
}
