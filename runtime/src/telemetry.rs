//! Logs of a process: to standard error, as text for people or as JSON lines for machines.
//!
//! Secrets are kept out by their types, which have no `Debug` that shows them; nothing here
//! filters.

use std::io::IsTerminal;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Environment variable with a filter, such as `info` or `yard_agent=debug,info`.
pub const FILTER_VARIABLE: &str = "YARD_LOG";

/// What a filter is when nobody says otherwise.
const DEFAULT_FILTER: &str = "info,openraft=warn";

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What to log, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How lines look.
    pub format: Format,
    /// What is logged; [`FILTER_VARIABLE`] when `None`, else `info`, without the consensus
    /// library's own talk.
    pub filter: Option<String>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("{0:?} is no log filter; write for instance info, or yard_agent=debug,info")]
    Filter(String, #[source] ParseError),
    /// The process has a log already.
    #[error("the log is set up already")]
    Twice(#[source] TryInitError),
    /// The log is gone.
    #[error("the log has ended")]
    Gone(#[source] reload::Error),
}

/// Changes the filter of a running process.
#[derive(Clone)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Telemetry {
    /// Sets up the log of this process.
    ///
    /// # Errors
    /// If the filter cannot be read, or the process has a log already.
    pub fn start(options: &Options) -> Result<Telemetry, TelemetryError> {
        let text = options.filter.clone().or_else(|| std::env::var(FILTER_VARIABLE).ok());
        let filter = parse(text.as_deref().unwrap_or(DEFAULT_FILTER))?;
        let (filter, handle) = reload::Layer::new(filter);
        let lines = match options.format {
            Format::Text => {
                let colours = std::io::stderr().is_terminal() && !no_color();
                fmt::layer().with_writer(std::io::stderr).with_ansi(colours).boxed()
            }
            Format::Json => {
                fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
            }
        };
        let registry = tracing_subscriber::registry().with(filter).with(lines);
        registry.try_init().map_err(TelemetryError::Twice)?;
        Ok(Telemetry { filter: handle })
    }

    /// Logs something else from now on.
    ///
    /// # Errors
    /// If the filter cannot be read; the old one then stays.
    pub fn set_filter(&self, text: &str) -> Result<(), TelemetryError> {
        self.filter.reload(parse(text)?).map_err(TelemetryError::Gone)
    }
}

fn parse(text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(text).map_err(|error| TelemetryError::Filter(text.to_string(), error))
}

/// Whether the user wants no colours (no-color.org).
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_it_is_used() {
        let error = parse("yard_agent=loud").unwrap_err().to_string();
        assert!(error.contains("yard_agent=loud") && error.contains("write"), "{error}");
        for good in ["info", "yard_agent=debug,info", "warn,h2=off"] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }
}
