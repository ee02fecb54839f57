//! What the gateway tells about itself: latency histograms, metrics, logs.

pub mod calls;
pub mod histogram;
pub mod logs;
pub mod metrics;
pub mod process;
