//! What is printed never holds a secret, whatever is put in.

use proptest::prelude::*;
use ringwall::settings::{Inputs, Settings};

/// Everything that would be printed, whether the settings are accepted or not.
fn printed(inputs: &Inputs) -> String {
    let (faults, warnings, effective) = match Settings::load(inputs) {
        Ok(loaded) => (Vec::new(), loaded.warnings, loaded.effective),
        Err(refused) => (refused.faults, refused.warnings, Vec::new()),
    };
    format!("{faults:?} {warnings:?} {effective:?}")
        + &faults.iter().map(ToString::to_string).collect::<String>()
        + &warnings.iter().map(ToString::to_string).collect::<String>()
}

const SECRET_NAMES: &[&str] = &[
    "WS_AUTH_TOKEN",
    "TCP_AUTH_TOKEN",
    "ORCHESTRATOR_SECURITY_TOKEN",
    "MASTER_SECURITY_TOKEN",
    "JWT_SECRET",
    "CREDENTIALS_ENCRYPTION_KEY",
    "TWILIO_AUTH_TOKEN",
    "RESEND_WEBHOOK_SECRET",
    "ALERT_WEBHOOK_SECRET",
    "ALERT_WEBHOOK_URL",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a secret is, and wherever it stands, it is never printed.
    #[test]
    fn no_secret_is_ever_printed(
        core in "[A-Za-z0-9+/=_-]{12,40}", prefix in "(whsec_|https://host/|ftp://|x y|\"|')?", name in 0..SECRET_NAMES.len(),
        profile in prop::bool::ANY, place in 0..6,
    ) {
        let secret = format!("{prefix}{core}");
        let mut inputs = Inputs::from_pairs(&[("RINGWALL_ENV", if profile { "production" } else { "development" })]);
        let name = SECRET_NAMES[name];
        let quoted = serde_json::to_string(&secret).unwrap();
        match place {
            0 => inputs.environment.push((name.into(), secret.clone().into())),
            1 => inputs.dotenv = Some((".env".into(), format!("{name}={secret}\n"))),
            2 => {
                inputs.environment.push(("CRM_KEY".into(), secret.clone().into()));
                inputs.policy = Some(("p".into(), "[upstream.a]\nurl = \"http://a/\"\nheader.X-Key = { env = \"CRM_KEY\" }\n".into()));
            }
            3 => inputs.policy = Some(("p".into(), format!("[upstream.a]\ncommand = [\"a\", {quoted}]\nenv.KEY = {quoted}\nheader.X = {quoted}\n"))),
            4 => inputs.policy = Some(("p".into(), format!("[upstream.a]\nurl = \"http://u:{core}@host/mcp?key={core}\"\n[agent.a]\ntoken_sha256 = {quoted}\n"))),
            _ => inputs.policy = Some(("p".into(), format!("[upstream.a]\nurl = \"http://a/\"\nheader.X = {secret}\n"))),
        }
        let text = printed(&inputs);
        prop_assert!(!text.contains(&core), "{core} in {text}");
    }

    /// Loading never panics, and says something about what it refuses.
    #[test]
    fn any_value_is_accepted_or_refused(name in 0..ringwall::settings::table::TABLE.len(), value in ".{0,40}", text in ".{0,80}") {
        let name = ringwall::settings::table::TABLE[name].spec().name;
        let mut inputs = Inputs::from_pairs(&[(name, &value)]);
        inputs.policy = Some(("p".into(), text.clone()));
        inputs.dotenv = Some((".env".into(), text));
        if let Err(faults) = Settings::load(&inputs) {
            prop_assert!(!faults.faults.is_empty());
            prop_assert!(faults.faults.iter().all(|fault| fault.to_string().lines().count() == 1), "{faults}");
        }
    }
}
