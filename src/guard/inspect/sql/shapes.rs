//! The shapes of an injection, in a window over the last tokens.

use super::super::rules::{Finding, Looker, RuleId};
use super::super::text::{byte, skip_space};
use super::tokens::Token;
use Token::*;

const WINDOW: usize = 6;

/// One reading of a text: what has gone by, and what has been learned from it.
pub(super) struct Reading<'l, 't> {
    look: &'l Looker<'t>,
    window: [Token; WINDOW],
    /// What the text began with, signs and parentheses aside.
    first: Option<Token>,
    /// The reading began behind a quote.
    broken: bool,
    /// Two names stood side by side: prose does that all the time, SQL rarely.
    prose: u32,
    /// Words of SQL that have gone by.
    words: u32,
    /// A statement began the text: a query in its own right, which has `where` and `from` of its own.
    whole: bool,
    count: u32,
    /// Tokens since one that a shape has.
    idle: usize,
    /// Parentheses closed that this text never opened.
    unopened: u32,
    depth: u32,
    selects: u32,
    /// What stands in front of the quote that was broken out of is one word at most.
    terse: bool,
    /// The text begins with a parenthesis.
    parenthesised: bool,
}

impl<'l, 't> Reading<'l, 't> {
    pub(super) fn new(look: &'l Looker<'t>, start: Token, from: usize) -> Self {
        Self {
            look,
            window: [start; WINDOW],
            first: None,
            broken: start == Broken,
            prose: 0,
            words: 0,
            whole: false,
            count: 0,
            idle: 0,
            unopened: 0,
            depth: 0,
            selects: 0,
            terse: !look.text.get(..from).unwrap_or_default().contains(&b' '),
            parenthesised: false,
        }
    }

    /// Takes the next token up; the injection, if it shows one.
    pub(super) fn push(&mut self, token: Token, at: usize, end: usize) -> Option<Finding> {
        self.count = self.count.saturating_add(1);
        let [.., before, last] = self.window;
        match token {
            Filler => return None,
            LeftParen => {
                self.depth = self.depth.saturating_add(1);
                self.parenthesised |= self.first.is_none();
                // `(` in front of a value changes nothing, behind a name it calls something.
                return None;
            }
            RightParen => {
                if self.depth == 0 {
                    self.unopened = self.unopened.saturating_add(1);
                    if self.first.is_none() {
                        self.first = Some(RightParen);
                    }
                }
                self.depth = self.depth.saturating_sub(1);
                return None;
            }
            // A sign in front of a value.
            Not if matches!(last, Logic | Compare | Like | Comma | Arithmetic | Select | By | Not) => return None,
            Arithmetic if matches!(last, Logic | Compare | Like | Comma | Arithmetic | By) => return None,
            // Arithmetic over values is a value.
            Number | Text | Variable
                if last == Arithmetic && matches!(before, Number | Text | Variable | Function | Grave | Name) =>
            {
                self.window.rotate_right(1);
                return None;
            }
            _ => {}
        }
        if self.first.is_none() && !matches!(token, Arithmetic | Not) {
            self.first = Some(token);
            self.whole = matches!(token, Select | Insert | Update | Delete | Define | Execute | Declare | Load | Set)
                && !self.broken;
        }
        if token == Name && last == Name {
            self.prose = self.prose.saturating_add(1);
        }
        if token == Select {
            self.selects = self.selects.saturating_add(1);
        }
        if !matches!(
            token,
            Name | Number
                | Text
                | Open
                | Variable
                | Call
                | Comma
                | Semicolon
                | Arithmetic
                | Compare
                | Stop
                | Cut
                | Comment
                | Collate
                | File
                | Object
                | Load
                | Set
        ) {
            self.words = self.words.saturating_add(1);
        }
        self.window.rotate_left(1);
        if let Some(place) = self.window.last_mut() {
            *place = token;
        }
        self.idle = if is_telling(token) { 0 } else { self.idle.saturating_add(1) };
        if self.idle >= WINDOW {
            return None;
        }
        let rule = self.shape(end)?;
        self.look.found(rule, at)
    }

    /// Does the text begin as something that a bare value would go on from?
    fn continues(&self) -> bool {
        self.broken
            || self.unopened > 0
            || self.parenthesised && matches!(self.first, Some(Select | Text | Call | Function))
            || matches!(
                self.first,
                Some(
                    Number
                        | Variable
                        | Logic
                        | Compare
                        | Like
                        | Semicolon
                        | Comma
                        | Sort
                        | Having
                        | Union
                        | Where
                        | As
                        | Grave
                        | Limit
                )
            )
    }

    fn shape(&self, end: usize) -> Option<RuleId> {
        self.union()
            .or_else(|| self.condition())
            .or_else(|| self.statement())
            .or_else(|| self.call(end))
            .or_else(|| self.query())
            .or_else(|| self.cut())
    }

    fn union(&self) -> Option<RuleId> {
        let calm = self.prose < 3 || self.continues();
        match self.window {
            [
                ..,
                Union,
                Select,
                Number | Text | Open | Variable | Function | Grave | Arithmetic | Select | Case | Catalogue,
            ] => Some(RuleId::SqlUnion),
            [.., Union, Select, Name | Call, Comma | From | Cut | Comment | As | Arithmetic | Logic] if calm => {
                Some(RuleId::SqlUnion)
            }
            [.., Union, Select, Name | Call, Stop] if self.continues() && self.prose == 0 => Some(RuleId::SqlUnion),
            [.., Union, Select, Stop | Cut | Comment] if self.continues() && self.prose == 0 => Some(RuleId::SqlUnion),
            [.., Union, Values, Number | Text] => Some(RuleId::SqlUnion),
            _ => None,
        }
    }

    /// Conditions whose answer does not depend on any data.
    fn condition(&self) -> Option<RuleId> {
        let continues = self.continues();
        let calm = self.prose == 0 || continues;
        match self.window {
            [.., Logic, Number, Compare | Like, Number | Function | Grave | Select | Text | Open | Variable]
                if calm =>
            {
                Some(RuleId::SqlCondition)
            }
            [.., Logic, Text, Compare | Like, Text | Open | Number | Function] if calm => Some(RuleId::SqlCondition),
            [.., Function, Number, Compare, Number, Comma] => Some(RuleId::SqlCondition),
            [.., Function, Number, Compare, Number, Select] => Some(RuleId::SqlCondition),
            [.., Where | Having, Number, Compare, Number] if !self.whole || self.selects == 0 => {
                Some(RuleId::SqlCondition)
            }
            [.., Having, Number, Logic, Number] if self.prose == 0 => Some(RuleId::SqlCondition),
            [.., Broken, Logic, Number | Text | Variable, Stop | Cut | Comment | Semicolon | Logic] => {
                Some(RuleId::SqlCondition)
            }
            [.., Broken, Logic | Compare, Open] if self.terse => Some(RuleId::SqlCondition),
            [.., Broken, Logic, Name, Arithmetic, Open | Stop] => Some(RuleId::SqlCondition),
            [
                ..,
                Broken,
                Logic,
                Name | Call | Catalogue,
                Compare | Like,
                Name | Number | Text | Open | Variable | Function | Select,
            ] if self.prose == 0 => Some(RuleId::SqlCondition),
            [.., Broken, Arithmetic | Compare, Number | Text | Function, Compare | Cut | Comment] => {
                Some(RuleId::SqlCondition)
            }
            [.., Broken, Arithmetic | Compare, Number | Function, Stop] if self.unopened == 0 && self.words > 0 => {
                Some(RuleId::SqlCondition)
            }
            [.., Start | Number, Logic, Name, Compare, Name | Number | Text]
                if continues && self.prose == 0 && self.count <= 12 =>
            {
                Some(RuleId::SqlCondition)
            }
            [.., Number | Broken | Start, Logic, Function | Call, Compare | Like, _] if continues => {
                Some(RuleId::SqlCondition)
            }
            [.., Number, Logic, Variable, Compare | Like] if continues => Some(RuleId::SqlCondition),
            [.., Number, Logic, Number, Cut | Comment] if continues => Some(RuleId::SqlCondition),
            [.., Start, Logic, Number, Cut] => Some(RuleId::SqlCondition),
            [.., Start, Number, Logic, Name, Like, Number] => Some(RuleId::SqlCondition),
            _ => None,
        }
    }

    /// A second statement.
    fn statement(&self) -> Option<RuleId> {
        let continues = self.continues();
        let near = continues || self.prose == 0 && self.count <= 10;
        match self.window {
            [.., Semicolon, Define, Object] if near => Some(RuleId::SqlStatement),
            [.., Semicolon, Insert, Into] if near => Some(RuleId::SqlStatement),
            [.., Semicolon, Delete, From] if near => Some(RuleId::SqlStatement),
            [.., Semicolon, Update, Name, Set] if near => Some(RuleId::SqlStatement),
            [.., Semicolon, Execute, Name | Call | Grave | Catalogue | Function | Text | Variable]
                if self.continues() =>
            {
                Some(RuleId::SqlStatement)
            }
            [.., Semicolon, Declare, Variable] | [.., _, Declare, Variable, Name | Call | Function] => {
                Some(RuleId::SqlStatement)
            }
            [.., Set, Variable, Compare, Function] => Some(RuleId::SqlStatement),
            [.., Semicolon, Function, Number, Compare] if continues => Some(RuleId::SqlStatement),
            [.., Start, Execute, Variable] => Some(RuleId::SqlStatement),
            [.., Semicolon, Set, Variable] if near => Some(RuleId::SqlStatement),
            [.., Semicolon, Shutdown, Stop | Cut | Comment | Semicolon] if self.continues() => {
                Some(RuleId::SqlStatement)
            }
            [.., Semicolon, Begin, Grave | Name | Call] if self.continues() => Some(RuleId::SqlStatement),
            [.., Semicolon, Load, Filler | Name | File | Text] if self.continues() => Some(RuleId::SqlStatement),
            [
                ..,
                Semicolon,
                Select,
                Number | Text | Function | Grave | Variable | Case | Arithmetic | Call | Select,
            ] if near => Some(RuleId::SqlStatement),
            [.., Semicolon, Select, Name, From | Comma] if self.continues() => Some(RuleId::SqlStatement),
            [.., Semicolon, Name, Number, Compare] if self.continues() => Some(RuleId::SqlStatement),
            [.., Waitfor, Delay, Text | Open | Variable | Number] => Some(RuleId::SqlStatement),
            [.., Execute, Grave] => Some(RuleId::SqlStatement),
            [.., Into, File, Text | Open | Variable] => Some(RuleId::SqlStatement),
            _ => None,
        }
    }

    /// Functions that no value calls.
    fn call(&self, end: usize) -> Option<RuleId> {
        match self.window {
            [.., Name, Grave] if self.prose > 1 && !self.continues() => None,
            [
                ..,
                Logic | Select | Compare | Comma | Broken | Arithmetic | By | Semicolon | Else | Then | When | From
                | Number,
                Grave,
            ] => Some(RuleId::SqlFunction),
            [.., Start, Grave] => Some(RuleId::SqlFunction),
            [.., Procedure, Name | Call] if self.continues() => Some(RuleId::SqlFunction),
            [.., Start | Logic | Select | Comma | Broken | Compare | By | Then | Arithmetic | Number, Function] => {
                self.sleeps(end).then_some(RuleId::SqlFunction)
            }
            _ => None,
        }
    }

    /// Is the function whose name ends at `end` a `sleep` of some number?
    fn sleeps(&self, end: usize) -> bool {
        let text = self.look.text;
        let name = text.get(end.saturating_sub(5)..end).unwrap_or_default();
        if name != b"sleep" {
            return false;
        }
        let open = skip_space(text, end);
        byte(text, skip_space(text, open.saturating_add(1))).is_ascii_digit()
    }

    /// A query inside of what should have been a value.
    fn query(&self) -> Option<RuleId> {
        let continues = self.continues();
        match self.window {
            [
                ..,
                Broken | Logic | Arithmetic | Compare | Like | Comma | Number | Function | Then | By | When | Variable
                | Select,
                Select,
                Number | Text | Variable | Function | Grave | Case | Arithmetic | Select | Catalogue,
            ] if continues => Some(RuleId::SqlQuery),
            [
                ..,
                Broken | Logic | Arithmetic | Compare | Like | Comma | Number | Function | Then | By | When,
                Select,
                Name | Call,
                From | Comma | Where | As,
            ] if continues => Some(RuleId::SqlQuery),
            [.., Case, When, Number, Compare, Number]
            | [.., Case, When, Number, Then]
            | [.., Case, Number, When, Number] => Some(RuleId::SqlQuery),
            [.., Sort, By, Number | Function | Grave, Stop | Cut | Comment | Comma] if continues && self.prose == 0 => {
                Some(RuleId::SqlQuery)
            }
            [.., Having, Number | Function, Compare, _] if continues => Some(RuleId::SqlQuery),
            [.., Sort, By, Name, Having, _] if continues => Some(RuleId::SqlQuery),
            [.., Select, Variable, _] => Some(RuleId::SqlQuery),
            [.., Select, _, From, Catalogue] => Some(RuleId::SqlQuery),
            [.., Function, _, From, Catalogue] => Some(RuleId::SqlQuery),
            [.., From, Catalogue] if continues => Some(RuleId::SqlQuery),
            [.., Start, From, Catalogue] => Some(RuleId::SqlQuery),
            [.., Start, As, Name, From, Stop] if self.unopened > 0 => Some(RuleId::SqlQuery),
            [.., Start, As, Name, Where, Number] => Some(RuleId::SqlQuery),
            [.., Broken, Logic, Function, _] if self.prose == 0 => Some(RuleId::SqlQuery),
            [.., Start | Comma, Logic | Comma, Function, Number | Function] if continues && self.prose == 0 => {
                Some(RuleId::SqlQuery)
            }
            [.., Number, Logic, Function, Number | Name | Text | Function | Call | Object]
                if continues && self.prose == 0 =>
            {
                Some(RuleId::SqlQuery)
            }
            [.., Start, Name, Logic, Function, Function | Call] if self.prose == 0 => Some(RuleId::SqlQuery),
            [.., Start, Function, Function, Function] if self.prose == 0 => Some(RuleId::SqlQuery),
            [.., Start, Function | Grave, Stop] if self.depth == 1 && self.look.text.len() <= 64 => {
                Some(RuleId::SqlQuery)
            }
            [.., Start, Logic, Number | Name, Compare, Stop] if self.depth > 0 => Some(RuleId::SqlQuery),
            _ => None,
        }
    }

    /// The rest of the query cut off behind a broken string.
    fn cut(&self) -> Option<RuleId> {
        let [.., last] = self.window;
        if last != Cut {
            return None;
        }
        match self.window {
            [.., Broken, Cut] | [.., Broken, Semicolon, Cut] => Some(RuleId::SqlComment),
            _ if self.broken && self.prose <= 1 && self.count > 2 => Some(RuleId::SqlComment),
            _ if self.continues() && self.words >= 2 && self.prose == 0 => Some(RuleId::SqlComment),
            _ => None,
        }
    }
}

/// Does some shape begin with or around the token? Without one in the window no shape is there.
const fn is_telling(token: Token) -> bool {
    !matches!(
        token,
        Name | Number
            | Text
            | Open
            | Variable
            | Call
            | Comma
            | Compare
            | Like
            | Arithmetic
            | Comment
            | Stop
            | Not
            | Filler
            | As
            | By
    )
}
