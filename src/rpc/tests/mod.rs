//! Tables of named cases for what several files of `rpc` decide together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod eras;
mod faults;
mod json;
mod params;

use crate::rpc::{Malformed, Parser};

fn refused(raw: &[u8]) -> Malformed {
    let shown = String::from_utf8_lossy(raw).into_owned();
    let fault = Parser::new(64).parse(raw).expect_err(&shown);
    assert!(fault.at as usize <= raw.len(), "{shown}");
    fault
}
