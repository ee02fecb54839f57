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
fn where_nothing_has_a_price_no_name_is_too_long() {
    let rules = rules("");
    assert!(!rules.any());
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
