//! Logs for people and for collectors, on standard error.
//!
//! A compact line for a terminal, JSON lines with `MCP_LOG_FORMAT=json`. Security events do not go here but to the audit
//! log; no secret goes to either.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One compact line an event, coloured on a terminal.
    #[default]
    Compact,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// What is normal and rare.
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

/// Logging was set up already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("logging is set up already")]
pub struct AlreadySet;

/// Sets the process's logging up, once. Our own modules log at `level`; libraries at `Warn` unless `level` is `Trace`.
///
/// # Errors
/// [`AlreadySet`] on a second call.
pub fn init(level: LogLevel, format: LogFormat) -> Result<(), AlreadySet> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let done = match format {
        LogFormat::Compact => builder.compact().with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    done.map_err(|_| AlreadySet)
}

fn filter(level: LogLevel) -> EnvFilter {
    let own = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let libraries = if level == LogLevel::Trace { LevelFilter::TRACE } else { own.min(LevelFilter::WARN) };
    EnvFilter::builder().parse_lossy(format!("{libraries},ringwall={own}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn our_level_is_ours_and_libraries_stay_quiet() {
        let cases = [
            (LogLevel::Off, "ringwall=off"),
            (LogLevel::Error, "ringwall=error"),
            (LogLevel::Debug, "ringwall=debug"),
            (LogLevel::Trace, "ringwall=trace"),
        ];
        for (level, want) in cases {
            let text = filter(level).to_string();
            assert!(text.contains(want), "{level:?}: {text}");
        }
        assert!(filter(LogLevel::Debug).to_string().contains("warn"));
        assert!(!filter(LogLevel::Error).to_string().contains("warn"));
    }
}
