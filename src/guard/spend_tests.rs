#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::settings::{Inputs, Settings};

fn rules(policy: &str) -> SpendRules {
    let inputs = Inputs { policy: Some(("ringwall.toml".into(), policy.to_owned())), ..Inputs::default() };
    SpendRules::new(&Settings::load(&inputs).unwrap().settings)
}

#[test]
fn the_first_entry_that_matches_decides_in_any_case_of_letters() {
    let rules = rules(
        r#"
        [upstream.a]
        url = "http://127.0.0.1:1/mcp"
        [upstream.b]
        url = "http://127.0.0.1:2/mcp"
        [tool.send]
        upstream = "a"
        price = { fixed_usd = "0.01" }
        [tool.SEND]
        price = { fixed_usd = "0.02" }
        [tool.send_nothing]
        kind = "other"
        [tool."send*"]
        price = { fixed_usd = "0.03" }
        "#,
    );
    let price = |upstream, tool| rules.priced(upstream, tool).map(|found| found.map(|priced| priced.price));
    let fixed = |microusd| Ok(Some(Price::Fixed { microusd }));
    assert_eq!(price("a", "send"), fixed(10_000));
    assert_eq!(price("a", "SEND"), fixed(20_000));
    assert_eq!(price("b", "send"), fixed(20_000), "the other is of another upstream");
    assert_eq!(price("b", "sEnD"), fixed(20_000));
    assert_eq!(price("b", "SEND_mail"), fixed(30_000));
    assert_eq!(price("b", "send_nothing"), Ok(None), "its own entry has no price");
    assert_eq!(price("b", "read"), Ok(None));
    let long = "x".repeat(257);
    assert_eq!(price("b", &long[1..]), Ok(None));
    assert_eq!(price("b", &long), Err(NameTooLong));
}

#[test]
fn caps_are_the_agents_own_else_its_tiers_else_the_default() {
    let hash = |n: char| n.to_string().repeat(64);
    let rules = rules(&format!(
        r#"
        [tier.gold]
        spend_per_day_usd = 50
        [agent.plain]
        token_sha256 = "{}"
        [agent.rich]
        token_sha256 = "{}"
        tier = "gold"
        [agent.own]
        token_sha256 = "{}"
        tier = "gold"
        limits = {{ spend_per_day_usd = "0.5", spend_per_month_usd = 7 }}
        "#,
        hash('1'),
        hash('2'),
        hash('3')
    ));
    let caps = |id: &str| rules.caps(&Principal::Agent(id.into()));
    assert_eq!(caps("plain"), Caps { day: 10_000_000, month: 100_000_000 });
    assert_eq!(caps("unheard-of"), caps("plain"));
    assert_eq!(rules.caps(&Principal::Door), caps("plain"));
    assert_eq!(caps("rich"), Caps { day: 50_000_000, month: 100_000_000 });
    assert_eq!(caps("own"), Caps { day: 500_000, month: 7_000_000 });
    assert_eq!(rules.caps_of("own"), caps("own"));
    assert!(!rules.any(), "nothing has a price");
    assert_eq!(rules.priced("a", &"x".repeat(1_000)), Ok(None));
}

#[test]
fn payers_cannot_be_taken_for_each_other() {
    let names = [Principal::Door, Principal::Anonymous, Principal::Demo].map(|who| payer(&who).to_owned());
    for name in &names {
        assert!(!crate::guard::jwt::is_agent_id(name));
    }
    assert_eq!(payer(&Principal::Agent("door".into())), "door");
}
