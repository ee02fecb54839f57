#![allow(clippy::unwrap_used)]

use super::*;
use crate::settings::{Inputs, Settings};

fn rates() -> Rates {
    Settings::load(&Inputs::default()).unwrap().settings.rates
}

fn policy(text: &str) -> Policy {
    let inputs = Inputs { policy: Some(("ringwall.toml".into(), text.to_owned())), ..Inputs::default() };
    Settings::load(&inputs).unwrap().settings.policy
}

#[test]
fn a_number_is_that_of_who_is_nearest() {
    let text = "[tier.gold]\nper_minute = 60\nper_hour = 600\n\n[agent.a]\ntier = \"gold\"\nlimits = { per_minute = 7 }\n\n\
                [agent.b]\ntier = \"gold\"\n\n[agent.c]\n";
    let book = LimitBook::new(&policy(text), &rates());
    let numbers = |book: &LimitBook, agent| {
        let limits = book.of(agent);
        (limits.per_minute, limits.per_hour, limits.per_day)
    };
    for (agent, expected) in [("a", (7, 600, 500)), ("b", (60, 600, 500)), ("c", (10, 100, 500)), ("d", (10, 100, 500))]
    {
        assert_eq!(numbers(&book, agent), expected, "{agent}");
    }
    let own = Limits { per_minute: Some(1), per_day: Some(0), ..Limits::default() };
    let told = book.with("a", own).with("d", own);
    assert_eq!(numbers(&told, "a"), (1, 600, 0));
    assert_eq!(numbers(&told, "d"), (1, 100, 0));
    assert_eq!(numbers(&told, "b"), (60, 600, 500), "nobody else");
    assert_eq!(numbers(&told.without("a"), "a"), (7, 600, 500), "taken back");
    let mut names: Vec<_> = told.all_overridden().collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "d"]);
    let loaded = book.with_all([("a".to_owned(), own)]);
    assert_eq!((numbers(&loaded, "a"), loaded.overridden("a")), ((1, 600, 0), Some(&own)));
}

#[test]
fn it_is_said_who_has_said_a_number() {
    let text = "[tier.gold]\nper_hour = 600\n\n[agent.a]\ntier = \"gold\"\nlimits = { per_day = 7 }\n";
    let book = LimitBook::new(&policy(text), &rates());
    let book = book.with("a", Limits { per_minute: Some(3), ..Limits::default() });
    let sources = [
        book.source("a", |limits| limits.per_minute.is_some()),
        book.source("a", |limits| limits.per_day.is_some()),
        book.source("a", |limits| limits.per_hour.is_some()),
        book.source("a", |limits| limits.same_number_per_day.is_some()),
        book.source("b", |limits| limits.per_minute.is_some()),
    ];
    assert_eq!(sources, [Source::Operator, Source::Agent, Source::Tier, Source::Default, Source::Default]);
}

#[test]
fn money_is_put_together_likewise() {
    let text = "[tier.gold]\nspend_per_day_usd = 50\n\n[agent.plain]\n\n[agent.rich]\ntier = \"gold\"\n\n\
                [agent.own]\ntier = \"gold\"\nlimits = { spend_per_day_usd = \"0.5\", spend_per_month_usd = 7 }\n";
    let book = LimitBook::new(&policy(text), &rates());
    let said = Limits { spend_per_month_microusd: Some(9), ..Limits::default() };
    let book = book.with("told", said);
    let default = Caps { day: 10_000_000, month: 100_000_000 };
    for (payer, expected) in [
        ("plain", default),
        ("unheard-of", default),
        ("(door)", default),
        ("rich", Caps { day: 50_000_000, ..default }),
        ("own", Caps { day: 500_000, month: 7_000_000 }),
        ("told", Caps { month: 9, ..default }),
    ] {
        assert_eq!(book.caps_of(payer), expected, "{payer}");
    }
}
