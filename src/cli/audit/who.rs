//! `ringwall audit who`: the pseudonym that stands in the trail for a person's address or number. The other way there is none.

use std::process::ExitCode;

use super::super::ask::plain;
use super::{Out, Place, filter};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Addresses (203.0.113.9, 2001:db8::9), telephone numbers (+15551234567) or e-mail addresses
    #[arg(required = true, allow_hyphen_values = true)]
    values: Vec<String>,
}

pub(super) fn run(args: &Args, place: &Place, out: &mut Out) -> Result<ExitCode, String> {
    let pseudonyms = filter::pseudonyms(&place.state, true)?;
    for value in &args.values {
        let pseudonym = pseudonyms.of(value).ok_or_else(|| {
            format!(
                "{:?} is no address, no number with its country code (+15551234567) and no e-mail address",
                plain(value)
            )
        })?;
        out.line(format_args!("{pseudonym}"));
    }
    Ok(ExitCode::SUCCESS)
}
