//! What this process is, and what it uses.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{MetricSources, Sink};
use crate::observe::process::{Usage, usage};

/// What every program tells, under the names that all use.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) usage: Usage,
    pub(super) started_at_ms: u64,
}

impl Collector for Common {
    #[allow(clippy::cast_precision_loss)] // milliseconds since the epoch fit 53 bits
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut sink = Sink { encoder: &mut encoder };
        let Usage { cpu_s, resident_bytes, open_fds, max_fds, .. } = &self.usage;
        sink.family("process_cpu", "CPU time of the process", Some(&Unit::Seconds), MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(cpu_s, None)?;
        let help = "When the process started, since the Unix epoch";
        sink.family("process_start_time", help, Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&(self.started_at_ms as f64 / 1000.0))?;
        if let Some(bytes) = resident_bytes {
            let help = "Resident memory";
            sink.family("process_resident_memory", help, Some(&Unit::Bytes), MetricType::Gauge)?.encode_gauge(bytes)?;
        }
        let fds = [
            ("process_open_fds", "Descriptors that are open", open_fds),
            ("process_max_fds", "Descriptors that may be open", max_fds),
        ];
        for (name, help, value) in fds {
            if let Some(value) = value {
                sink.gauge(name, help, *value)?;
            }
        }
        Ok(())
    }
}

impl MetricSources {
    pub(super) fn encode_process(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let mut build = sink.encoder.encode_descriptor("build", "Version and I/O driver", None, MetricType::Info)?;
        build.encode_info(&[("version", self.version), ("driver", self.driver)])?;
        let phase = self.lifecycle.phase() as u64;
        sink.gauge("phase", "Phase of the process: 0 starting, 1 ready, 2 draining, 3 stopped", phase)?;
        sink.gauge("workers", "Worker threads", self.workers.len() as u64)?;
        let help = "CPU time of threads, by name";
        let mut threads = sink.family("thread_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (name, cpu_s) in usage().threads {
            let labels = [("thread", name.as_str())];
            threads.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&cpu_s, None)?;
        }
        Ok(())
    }
}
