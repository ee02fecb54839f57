//! Operators: they issue, rotate and revoke tokens through the admin API, one request after the other, and write down what they were answered.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;

use super::super::faults::rng::Rng;
use super::super::faults::stage::Stage;
use super::book::{Asked, Book, Listed};

/// The name of a check.
pub(super) const SERVED: &str = "every change is answered until the kill";

/// How many work at once.
pub(super) const OPERATORS: usize = 3;
/// Mean milliseconds between two requests of one.
const PACE_MS: u64 = 8;
/// Agents that have tokens.
const AGENTS: u64 = 40;

#[derive(Deserialize)]
struct Told {
    secret: String,
    token: Listed,
}

/// Works until the stage is over.
pub(super) async fn work(stage: Rc<Stage>, book: Rc<RefCell<Book>>, mut rng: Rng) {
    while !stage.is_over.get() {
        tokio::time::sleep(Duration::from_millis(rng.below(2 * PACE_MS + 1))).await;
        let grace = rng.percent(50);
        let asked = match rng.below(100) {
            0..40 => None,
            40..65 => Some(Asked::Rotation { grace }),
            _ => Some(Asked::Revocation),
        };
        let picked = asked.and_then(|asked| Some((asked, book.borrow_mut().pick(&mut rng, asked)?)));
        let done = match picked {
            None => issue(&stage, &book, &mut rng).await,
            Some((Asked::Revocation, id)) => revoke(&stage, &book, &id).await,
            Some((Asked::Rotation { grace }, id)) => rotate(&stage, &book, &id, grace).await,
        };
        if let Err(error) = done.filter_killed(&stage) {
            stage.ledger.violated(SERVED, error.to_string());
            // What has become of it, the next start will say.
            return;
        }
    }
}

async fn issue(stage: &Stage, book: &RefCell<Book>, rng: &mut Rng) -> io::Result<()> {
    let label = book.borrow_mut().label();
    book.borrow_mut().ask(&label);
    let body = format!(r#"{{"agent":"agent-{}","label":"{label}"}}"#, rng.below(AGENTS));
    let Told { secret, token } = told(stage.gateway.ask("POST", "/admin/tokens", &body).await?, 201)?;
    book.borrow_mut().issued(token.id, secret, label);
    Ok(())
}

async fn rotate(stage: &Stage, book: &RefCell<Book>, id: &str, grace: bool) -> io::Result<()> {
    let body = format!(r#"{{"graceSeconds":{}}}"#, if grace { 86_400 } else { 0 });
    let answer = stage.gateway.ask("POST", &format!("/admin/tokens/{id}/rotate"), &body).await?;
    let Told { secret, token } = told(answer, 201)?;
    book.borrow_mut().rotated(id, grace, token.id, secret);
    Ok(())
}

async fn revoke(stage: &Stage, book: &RefCell<Book>, id: &str) -> io::Result<()> {
    let answer = stage.gateway.ask("DELETE", &format!("/admin/tokens/{id}"), "").await?;
    let _: Listed = told(answer, 200)?;
    book.borrow_mut().revoked(id);
    Ok(())
}

fn told<T: for<'a> Deserialize<'a>>((status, body): (u16, String), wanted: u16) -> io::Result<T> {
    if status != wanted {
        return Err(io::Error::other(format!("{status} in place of {wanted}: {body}")));
    }
    Ok(serde_json::from_str(&body)?)
}

/// All tokens, a page after the other.
pub(super) async fn list(stage: &Stage) -> io::Result<Vec<Listed>> {
    #[derive(Deserialize)]
    struct Page {
        tokens: Vec<Listed>,
        next: Option<String>,
    }
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = stage.gateway.ask("GET", &format!("/admin/tokens?limit=500{cursor}"), "").await?;
        let Page { tokens, next } = told(answer, 200)?;
        all.extend(tokens);
        match next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(all),
        }
    }
}

trait FilterKilled {
    /// No answer is none of the gateway's faults once it is being killed.
    fn filter_killed(self, stage: &Stage) -> Self;
}

impl FilterKilled for io::Result<()> {
    fn filter_killed(self, stage: &Stage) -> Self {
        if stage.ledger.is_killed.get() { Ok(()) } else { self }
    }
}
