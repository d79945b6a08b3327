//! GPUs through NVML, which is loaded at run time: a machine without it has none, and says so.
//!
//! NVML can hang when a driver does. It is asked on a thread of its own, which is given up when it
//! does not answer in time.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use std::fmt;
use std::sync::mpsc;
use std::time::Duration;
use yard_common::Bytes;
use yard_common::gpu::{GpuDevice, MigProfile};
use yard_common::limits::{GPU_PROBE_MS, LABEL_BYTES_MAX, NODE_DEVICES_MAX};

/// Files that the library goes by; the first is what the driver installs.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// Where the list of GPUs comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuFinding {
    /// NVML named them.
    Nvml,
    /// There is no NVML: no driver, so no GPUs.
    NoLibrary,
    /// NVML is there and does not work.
    Failed(String),
    /// NVML did not answer in time.
    TimedOut,
    /// They are made up.
    Fake,
}

impl fmt::Display for GpuFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuFinding::Nvml => f.write_str("NVML"),
            GpuFinding::NoLibrary => f.write_str("no NVML: no GPUs"),
            GpuFinding::Failed(why) => write!(f, "NVML fails ({why}): no GPUs"),
            GpuFinding::TimedOut => {
                write!(f, "NVML did not answer within {} s: no GPUs", GPU_PROBE_MS / 1_000)
            }
            GpuFinding::Fake => f.write_str("fake"),
        }
    }
}

/// Made-up GPUs.
pub(super) fn fake(count: u16, node: &str) -> (Vec<GpuDevice>, GpuFinding) {
    let device = |number| GpuDevice {
        uuid: format!("GPU-fake-{node}-{number}"),
        model: "fake".to_string(),
        memory: Bytes(16 << 30),
        mig: None,
        healthy: true,
    };
    let devices = (0..usize::from(count).min(NODE_DEVICES_MAX)).map(device).collect();
    (devices, GpuFinding::Fake)
}

/// Asks NVML.
pub(super) fn probe() -> (Vec<GpuDevice>, GpuFinding) {
    within(Duration::from_millis(GPU_PROBE_MS), || match load() {
        Ok(None) => (Vec::new(), GpuFinding::NoLibrary),
        Ok(Some(nvml)) => match devices(&nvml) {
            Ok(devices) => (devices, GpuFinding::Nvml),
            Err(error) => (Vec::new(), GpuFinding::Failed(error.to_string())),
        },
        Err(error) => (Vec::new(), GpuFinding::Failed(error.to_string())),
    })
}

/// What `ask` answers, or that it did not in time. A thread that hangs in a driver cannot be
/// ended; it is left behind, and holds nothing that anybody needs.
fn within(
    time: Duration,
    ask: impl FnOnce() -> (Vec<GpuDevice>, GpuFinding) + Send + 'static,
) -> (Vec<GpuDevice>, GpuFinding) {
    let (answer, answered) = mpsc::sync_channel(1);
    let asked = std::thread::Builder::new().name("yard-nvml".into()).spawn(move || {
        let _ = answer.send(ask());
    });
    if let Err(error) = asked {
        return (Vec::new(), GpuFinding::Failed(error.to_string()));
    }
    match answered.recv_timeout(time) {
        Ok(found) => found,
        Err(mpsc::RecvTimeoutError::Timeout) => (Vec::new(), GpuFinding::TimedOut),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            (Vec::new(), GpuFinding::Failed("it crashed".to_string()))
        }
    }
}

fn load() -> Result<Option<Nvml>, NvmlError> {
    for library in LIBRARIES {
        match Nvml::builder().lib_path(library.as_ref()).init() {
            Ok(nvml) => return Ok(Some(nvml)),
            Err(NvmlError::LibloadingError(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// GPUs in the order of NVML; in place of one that is split, its MIG instances.
fn devices(nvml: &Nvml) -> Result<Vec<GpuDevice>, NvmlError> {
    let mut devices = Vec::new();
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index)?;
        let name = device.name()?;
        let split = device.mig_mode().is_ok_and(|mode| mode.current != 0);
        if !split {
            let memory = Bytes(device.memory_info()?.total);
            let (uuid, model) = (device.uuid()?, model_name(&name));
            devices.push(GpuDevice { uuid, model, memory, mig: None, healthy: true });
            continue;
        }
        for instance in 0..device.mig_device_count()? {
            // Places of the list may be empty.
            let Ok(instance) = device.mig_device_by_index(instance) else { continue };
            let memory = Bytes(instance.memory_info()?.total);
            let mig = instance.name().ok().and_then(|name| profile(&name));
            let (uuid, model) = (instance.uuid()?, model_name(&name));
            devices.push(GpuDevice { uuid, model, memory, healthy: mig.is_some(), mig });
        }
    }
    devices.truncate(NODE_DEVICES_MAX);
    Ok(devices)
}

/// The profile in the name of a MIG instance: `NVIDIA A100-SXM4-80GB MIG 1g.10gb`.
fn profile(name: &str) -> Option<MigProfile> {
    name.split_whitespace().last()?.parse().ok()
}

/// The model as users ask for it: `NVIDIA H100 80GB HBM3` is `h100`.
#[must_use]
fn model_name(name: &str) -> String {
    let words = name.split(|c: char| c.is_whitespace() || c == '-');
    let noise = ["NVIDIA", "Tesla", "GeForce", "Quadro"];
    let words: Vec<&str> = words.filter(|word| !noise.contains(word) && !word.is_empty()).collect();
    // `RTX 4090` and `RTX A6000` need their number; `H100`, `A100`, `V100` and `T4` are whole.
    let count =
        if words.first().is_some_and(|word| matches!(*word, "RTX" | "GTX")) { 2 } else { 1 };
    let model: String = words.iter().take(count).flat_map(|word| word.chars()).collect();
    model.to_ascii_lowercase().chars().take(LABEL_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_as_users_ask_for_them() {
        for (name, model) in [
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA A100-SXM4-80GB", "a100"),
            ("Tesla V100-PCIE-16GB", "v100"),
            ("NVIDIA GeForce RTX 4090", "rtx4090"),
            ("NVIDIA RTX A6000", "rtxa6000"),
            ("Tesla T4", "t4"),
            ("", ""),
        ] {
            assert_eq!(model_name(name), model, "{name}");
        }
    }

    #[test]
    fn profiles_are_read_from_names() {
        let found = profile("NVIDIA A100-SXM4-80GB MIG 1g.10gb").unwrap();
        assert_eq!(found.to_string(), "1g.10gb");
        assert_eq!(profile("NVIDIA H100 80GB HBM3"), None);
    }

    #[test]
    fn a_call_that_hangs_is_given_up() {
        let (release, hang) = mpsc::channel::<()>();
        let found = within(Duration::from_millis(1), move || {
            let _ = hang.recv();
            (Vec::new(), GpuFinding::Nvml)
        });
        assert_eq!(found.1, GpuFinding::TimedOut);
        drop(release);
    }

    #[test]
    fn a_machine_without_the_library_has_no_gpus_and_says_so() {
        let (devices, finding) = probe();
        match finding {
            GpuFinding::NoLibrary => assert!(devices.is_empty()),
            GpuFinding::Nvml => assert!(devices.iter().all(|device| !device.uuid.is_empty())),
            other => panic!("{other}"),
        }
    }
}
