//! What is broken, and what a client may be told then: the table that every answer is judged by.
//!
//! It is written from docs/http-faults.md and docs/message-doors.md, and printed for people in docs/faults.md. A call that carries a fault must end
//! with one of the verdicts of its row. A call that carries none must end with [`Verdict::Right`], unless its upstream was broken at the same
//! time ([`collateral`]).

use clap::ValueEnum;

use super::verdict::{Allowed, Verdict};

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Streamable HTTP.
    Http,
    /// A message a line.
    Lines,
    /// A message a text frame.
    WebSocket,
}

/// Where a client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Door {
    /// `POST /mcp`.
    Http,
    /// Lines.
    Tcp,
    /// `GET /ws`.
    Ws,
}

impl Door {
    pub(crate) const ALL: [Self; 3] = [Self::Http, Self::Tcp, Self::Ws];
}

/// How a call gets from its door to its upstream: this decides what can be told of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Way {
    /// From the HTTP door to an upstream over HTTP: what the upstream says is passed on as it is.
    Relayed,
    /// From a door that carries messages to an upstream over HTTP.
    Carried,
    /// From a door that carries messages over a connection of the worker to an upstream on a socket.
    Linked,
    /// From the HTTP door, or of a session with several upstreams, over a shared connection of the children thread.
    Brokered,
}

impl Way {
    const ALL: [Self; 4] = [Self::Relayed, Self::Carried, Self::Linked, Self::Brokered];

    /// The way of a call. `session` says that its client has a session, and `several` that there are several upstreams.
    pub(crate) fn of(door: Door, kind: Kind, session: bool, several: bool) -> Self {
        match (door, kind) {
            (Door::Http, Kind::Http) => Self::Relayed,
            (_, Kind::Http) => Self::Carried,
            (Door::Http, _) => Self::Brokered,
            _ if session && several => Self::Brokered,
            _ => Self::Linked,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relayed => "relayed",
            Self::Carried => "carried",
            Self::Linked => "linked",
            Self::Brokered => "brokered",
        }
    }
}

/// What an upstream does with a call instead of answering it. Its name on the command line and in a call's arguments is its own in small letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    /// It answers.
    None,
    /// It takes the call and says nothing, until whoever asked gives up.
    Stall,
    /// Half an answer, then a reset.
    Reset,
    /// A right answer, and a reset once the connection rests.
    IdleReset,
    /// Bytes that are none of the protocol.
    Garbage,
    /// Half an answer, then an end in good order.
    Half,
    /// A byte of the answer each 50 ms.
    Drip,
    /// A right answer of 17 MiB.
    Oversize,
    /// A right answer under a media type that is not JSON's; over a WebSocket as a binary message.
    ContentType,
    /// An answer with an id that nobody has used.
    WrongId,
    /// An answer with the id of another call, over a connection that does not carry that call.
    OthersId,
    /// A right answer, twice.
    Twice,
    /// An error of the upstream's own: over HTTP a 503 that is a page for people, else a JSON-RPC error.
    Error,
}

impl Fault {
    pub(crate) fn all() -> &'static [Self] {
        Self::value_variants()
    }

    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    /// Whether others that use the same connection, or the same upstream, may notice.
    pub(crate) fn disturbs(self) -> bool {
        !matches!(self, Self::None | Self::Twice | Self::Error)
    }

    /// Whether an upstream of this kind can be broken so.
    pub(crate) fn fits(self, kind: Kind) -> bool {
        !(self == Self::ContentType && kind == Kind::Lines)
    }
}

use Verdict::{
    AsSent, Broken, Busy, Cut, Late, NotAnAnswer, NotHttp, Right, SessionLost, TooLong, Unreached, Withheld,
};

/// Verdicts that a call with this fault may end with, by its way: relayed, carried, linked, brokered.
const TABLE: &[(Fault, [&[Verdict]; 4])] = &[
    (Fault::None, [&[Right], &[Right], &[Right], &[Right]]),
    (Fault::Stall, [&[Late], &[Late], &[Late], &[Late]]),
    // A long answer has begun to leave when it breaks: the connection is cut before the body's end.
    (Fault::Reset, [&[Broken, Cut], &[Broken], &[Broken], &[Broken]]),
    (Fault::IdleReset, [&[Right], &[Right], &[Right], &[Right]]),
    // A line or text that is no message is dropped, and the call goes unanswered; a frame that is none ends the connection.
    (Fault::Garbage, [&[NotHttp], &[NotHttp], &[Late, Broken], &[Late, Broken]]),
    (Fault::Half, [&[NotHttp, Broken, Cut], &[NotHttp, Broken], &[Broken], &[Broken]]),
    (Fault::Drip, [&[Right, Late], &[Right, Late], &[Right, Late], &[Right, Late]]),
    // It may take longer than a call may. One that did not announce its length has begun to leave, and is cut.
    (Fault::Oversize, [&[Withheld, Cut], &[NotHttp, Late], &[Broken, Late], &[TooLong, Broken, Late]]),
    (Fault::ContentType, [&[AsSent], &[NotAnAnswer], &[Broken], &[Broken]]),
    (Fault::WrongId, [&[AsSent], &[NotAnAnswer], &[Late], &[Late]]),
    (Fault::OthersId, [&[AsSent], &[NotAnAnswer], &[Late], &[Late]]),
    (Fault::Twice, [&[Right], &[Right], &[Right], &[Right]]),
    (Fault::Error, [&[AsSent], &[NotAnAnswer], &[AsSent], &[AsSent]]),
];

/// What a call that carries `fault` may end with.
pub(crate) fn allowed(fault: Fault, way: Way) -> Allowed {
    let row = TABLE.iter().find(|(of, _)| *of == fault);
    let at = Way::ALL.iter().position(|one| *one == way).unwrap_or_default();
    row.and_then(|(_, ways)| ways.get(at)).map_or(Allowed::NOTHING, |verdicts| Allowed::of(verdicts))
}

/// What a call may end with, beside the right answer, while its upstream is broken for the sake of other calls or as a whole.
pub(crate) fn collateral(way: Way) -> Allowed {
    Allowed::of(match way {
        // Every call has a connection of its own: only one that is gone, or cannot be had, is noticed, and that all are taken.
        Way::Relayed | Way::Carried => &[Broken, Unreached, Busy],
        // One connection for many: they share its end, wait behind what drips, and a session ends with it.
        Way::Linked => &[Broken, Unreached, Busy, Late, SessionLost],
        // Its session goes on: the gateway opens it anew.
        Way::Brokered => &[Broken, Unreached, Busy, Late],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_one_row_and_every_way_something_that_is_allowed() {
        for fault in Fault::all() {
            assert_eq!(TABLE.iter().filter(|(of, _)| of == fault).count(), 1, "{fault:?}");
            assert_eq!(Fault::parse(&fault.name()), Some(*fault));
            for way in Way::ALL {
                assert_ne!(allowed(*fault, way), Allowed::NOTHING, "{fault:?} {way:?}");
                for never in [Verdict::Wrong, Verdict::Lost, Verdict::Unrecorded] {
                    assert!(!allowed(*fault, way).has(never) && !collateral(way).has(never), "{fault:?} {way:?}");
                }
            }
        }
    }

    #[test]
    fn only_what_is_relayed_over_http_may_be_as_the_upstream_sent_it_or_cut() {
        for fault in Fault::all() {
            for way in [Way::Carried, Way::Linked, Way::Brokered] {
                assert!(!allowed(*fault, way).has(Verdict::Cut), "{fault:?} {way:?}");
                assert!(*fault == Fault::Error || !allowed(*fault, way).has(Verdict::AsSent), "{fault:?} {way:?}");
            }
        }
    }

    #[test]
    fn doors_and_kinds_have_the_ways_that_the_architecture_gives() {
        assert_eq!(Way::of(Door::Http, Kind::Http, false, true), Way::Relayed);
        assert_eq!(Way::of(Door::Ws, Kind::Http, true, false), Way::Carried);
        assert_eq!(Way::of(Door::Http, Kind::Lines, false, false), Way::Brokered);
        assert_eq!(Way::of(Door::Tcp, Kind::Lines, true, true), Way::Brokered);
        assert_eq!(Way::of(Door::Tcp, Kind::Lines, true, false), Way::Linked);
        assert_eq!(Way::of(Door::Ws, Kind::WebSocket, false, true), Way::Linked);
    }
}
