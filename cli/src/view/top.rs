//! What running jobs use: a row for each task, or for each of its machines.

use crate::output::{Listing, Row, Tone, column};
use crate::text::{self, NONE};
use serde_json::{Value, json};
use yard_proto::v1::Sample;

/// From when on silence is pointed out: 10 minutes, the default of `stall.warn`.
const SILENT_MS: u64 = 10 * 60 * 1_000;
/// From which share of the granted memory on it is pointed out, in hundredths.
const FULL_PERCENT: u64 = 90;

/// The samples of one task together, or one of them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum {
    first: Sample,
    nodes: Vec<String>,
    ranks: u32,
    cpu_milli: Option<u64>,
    granted_cpu_milli: u64,
    memory_bytes: Option<u64>,
    memory_peak_bytes: Option<u64>,
    granted_memory_bytes: u64,
    read_bytes_per_s: Option<u64>,
    write_bytes_per_s: Option<u64>,
    log_bytes_per_s: Option<u64>,
    net_bytes_per_s: Option<u64>,
    gpus: u32,
    /// Of all of its GPUs.
    gpu_busy_percent: Option<u64>,
    gpu_memory_bytes: Option<u64>,
    processes: u32,
    /// Of the machine that was silent for the shortest time.
    silent_ms: u64,
}

/// A row for each task that runs; for each of its machines with `by_node`.
pub(crate) fn listing(samples: &[Sample], by_node: bool) -> Listing {
    let mut sums: Vec<Sum> = Vec::new();
    for sample in samples {
        let same = |sum: &&mut Sum| {
            let key = |sample: &Sample| (sample.job_id, sample.task_index, sample.attempt);
            !by_node && key(&sum.first) == key(sample)
        };
        match sums.last_mut().filter(same) {
            Some(sum) => sum.add(sample),
            None => {
                let first = sample.clone();
                let mut sum = Sum { first, silent_ms: u64::MAX, ..Sum::default() };
                sum.add(sample);
                sums.push(sum);
            }
        }
    }
    let columns = vec![
        column("ID").right(),
        column("NAME"),
        column("OWNER"),
        column(if by_node { "NODE" } else { "NODES" }),
        column("RANKS").right(),
        column("CPU").right(),
        column("MEMORY").right(),
        column("PEAK").right(),
        column("GPU").right(),
        column("GPUMEM").right(),
        column("READ/s").right(),
        column("WRITE/s").right(),
        column("NET/s").right(),
        column("OUTPUT/s").right(),
        column("PROCS").right(),
        column("SILENT").right(),
    ];
    let rows = sums.iter().map(|sum| sum.row(by_node)).collect();
    Listing { kind: "Sample", columns, rows }
}

fn add(to: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *to = Some(to.unwrap_or(0).saturating_add(value));
    }
}

impl Sum {
    fn add(&mut self, sample: &Sample) {
        self.nodes.push(sample.node.clone());
        self.ranks = self.ranks.saturating_add(sample.ranks);
        self.processes = self.processes.saturating_add(sample.processes);
        self.granted_cpu_milli = self.granted_cpu_milli.saturating_add(sample.granted_cpu_milli);
        self.granted_memory_bytes =
            self.granted_memory_bytes.saturating_add(sample.granted_memory_bytes);
        add(&mut self.cpu_milli, sample.cpu_milli);
        add(&mut self.memory_bytes, sample.memory_bytes);
        add(&mut self.memory_peak_bytes, sample.memory_peak_bytes);
        add(&mut self.read_bytes_per_s, sample.read_bytes_per_s);
        add(&mut self.write_bytes_per_s, sample.write_bytes_per_s);
        add(&mut self.log_bytes_per_s, sample.log_bytes_per_s);
        add(&mut self.net_bytes_per_s, sample.net_bytes_per_s);
        add(&mut self.gpu_memory_bytes, sample.gpu_memory_bytes);
        let (gpus, busy) = (u64::from(sample.gpus), sample.gpu_busy_percent);
        add(&mut self.gpu_busy_percent, busy.map(|percent| u64::from(percent) * gpus));
        self.gpus = self.gpus.saturating_add(sample.gpus);
        self.silent_ms = self.silent_ms.min(sample.silent_ms);
    }

    /// How busy its GPUs are on average.
    fn gpu_busy(&self) -> Option<u64> {
        self.gpu_busy_percent.map(|sum| sum / u64::from(self.gpus.max(1)))
    }

    fn row(&self, by_node: bool) -> Row {
        let first = &self.first;
        let of = |used: Option<String>, granted: String| match used {
            Some(used) => format!("{used}/{granted}"),
            None => format!("{NONE}/{granted}"),
        };
        let bytes = |count: Option<u64>| count.map_or(NONE.into(), text::bytes);
        let name = match first.task_index {
            0 => first.job_id.to_string(),
            task => format!("{}[{task}]", first.job_id),
        };
        let nodes = match self.nodes.as_slice() {
            [node] => node.clone(),
            _ if by_node => self.nodes.join(","),
            nodes => nodes.len().to_string(),
        };
        let cells = vec![
            name.clone(),
            first.job_name.clone(),
            first.owner.clone(),
            nodes,
            self.ranks.to_string(),
            of(
                self.cpu_milli.map(|milli| text::cpus(milli / 10 * 10)),
                text::cpus(self.granted_cpu_milli),
            ),
            of(self.memory_bytes.map(text::bytes), text::bytes(self.granted_memory_bytes)),
            bytes(self.memory_peak_bytes),
            self.gpu_busy().map_or(NONE.into(), |percent| format!("{percent}%")),
            bytes(self.gpu_memory_bytes),
            bytes(self.read_bytes_per_s),
            bytes(self.write_bytes_per_s),
            bytes(self.net_bytes_per_s),
            bytes(self.log_bytes_per_s),
            self.processes.to_string(),
            if self.silent_ms == 0 { NONE.into() } else { text::span(self.silent_ms) },
        ];
        let mut tones = Vec::new();
        let is_full = self.memory_bytes.is_some_and(|bytes| {
            bytes.saturating_mul(100) >= self.granted_memory_bytes.saturating_mul(FULL_PERCENT)
        });
        if is_full && self.granted_memory_bytes > 0 {
            tones.push((6, Tone::Bad));
        }
        if self.silent_ms >= SILENT_MS {
            tones.push((15, Tone::Bad));
        }
        Row { cells, value: self.value(), name, tones }
    }

    fn value(&self) -> Value {
        let first = &self.first;
        json!({
            "job": first.job_id,
            "task": first.task_index,
            "attempt": first.attempt,
            "name": first.job_name,
            "owner": first.owner,
            "nodes": self.nodes,
            "ranks": self.ranks,
            "cpu_milli": self.cpu_milli,
            "granted_cpu_milli": self.granted_cpu_milli,
            "memory_bytes": self.memory_bytes,
            "memory_peak_bytes": self.memory_peak_bytes,
            "granted_memory_bytes": self.granted_memory_bytes,
            "read_bytes_per_s": self.read_bytes_per_s,
            "write_bytes_per_s": self.write_bytes_per_s,
            "net_bytes_per_s": self.net_bytes_per_s,
            "gpus": self.gpus,
            "gpu_busy_percent": self.gpu_busy(),
            "gpu_memory_bytes": self.gpu_memory_bytes,
            "log_bytes_per_s": self.log_bytes_per_s,
            "processes": self.processes,
            "silent_ms": self.silent_ms,
            "age_ms": first.age_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn sample(node: &str, task_index: u32, silent_ms: u64) -> Sample {
        Sample {
            job_id: 812,
            job_name: "llama".into(),
            owner: "ann".into(),
            task_index,
            attempt: 1,
            node: node.into(),
            ranks: 8,
            cpu_milli: Some(7_500),
            granted_cpu_milli: 16_000,
            memory_bytes: Some(3 << 30),
            granted_memory_bytes: 8 << 30,
            log_bytes_per_s: Some(2_048),
            processes: 20,
            silent_ms,
            ..Sample::default()
        }
    }

    #[test]
    fn the_machines_of_a_task_are_one_row_or_many() {
        let samples = [sample("n1", 0, 0), sample("n2", 0, 900_000), sample("n1", 1, 700_000)];
        let table = listing(&samples, false).render(Format::Csv);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert!(lines[1].starts_with("812,llama,ann,2,16,15/32,6GiB/16GiB,"), "{table}");
        assert!(lines[1].ends_with(",40,-"), "one of its machines is not silent: {table}");
        assert!(lines[2].starts_with("812[1],llama,ann,n1,8,"), "{table}");
        assert!(lines[2].ends_with("11m40s"), "{table}");
        assert_eq!(listing(&samples, true).rows.len(), 3);
        let json = listing(&samples, false).render(Format::Json);
        let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        assert_eq!(json["items"][0]["nodes"], json!(["n1", "n2"]));
        assert_eq!(json["items"][0]["memory_peak_bytes"], json!(null));
        assert_eq!(json["items"][0]["gpu_busy_percent"], json!(null));
    }

    #[test]
    fn gpus_of_several_machines_are_busy_on_average() {
        let with = |node: &str, gpus, percent| Sample {
            gpus,
            gpu_busy_percent: Some(percent),
            gpu_memory_bytes: Some(1 << 30),
            net_bytes_per_s: Some(2_048),
            ..sample(node, 0, 0)
        };
        let samples = [with("n1", 3, 100), with("n2", 1, 20)];
        let table = listing(&samples, false).render(Format::Csv);
        assert!(table.contains(",80%,2GiB,-,-,4KiB,4KiB,40,-"), "{table}");
    }
}
