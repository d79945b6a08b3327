//! GPUs: where they come from, and what they are called. NVML is loaded at run time: a machine
//! without it has none, and says so. It is asked in `health`.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use yard_common::Bytes;
use yard_common::gpu::{GpuDevice, MigProfile};
use yard_common::limits::{LABEL_BYTES_MAX, NODE_DEVICES_MAX};

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
            GpuFinding::Failed(why) => write!(f, "NVML fails: {why}"),
            GpuFinding::TimedOut => f.write_str("NVML does not answer"),
            GpuFinding::Fake => f.write_str("fake"),
        }
    }
}

/// Made-up GPUs.
pub(crate) fn fake(count: u16, node: &str) -> Vec<GpuDevice> {
    let device = |number| GpuDevice {
        uuid: format!("GPU-fake-{node}-{number}"),
        model: "fake".to_string(),
        memory: Bytes(16 << 30),
        mig: None,
        healthy: true,
    };
    (0..usize::from(count).min(NODE_DEVICES_MAX)).map(device).collect()
}

/// The library of NVML: that of a file, or where the system has it. None: there is none.
///
/// # Errors
/// If it is there, and does not work.
pub(crate) fn load(file: Option<&Path>) -> Result<Option<Nvml>, NvmlError> {
    let own = file.map(Path::as_os_str).into_iter();
    let usual = LIBRARIES.iter().map(OsStr::new).filter(|_| file.is_none());
    for library in own.chain(usual) {
        match Nvml::builder().lib_path(library).init() {
            Ok(nvml) => return Ok(Some(nvml)),
            Err(NvmlError::LibloadingError(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The profile in the name of a MIG instance: `NVIDIA A100-SXM4-80GB MIG 1g.10gb`.
pub(crate) fn profile(name: &str) -> Option<MigProfile> {
    name.split_whitespace().last()?.parse().ok()
}

/// The model as users ask for it: `NVIDIA H100 80GB HBM3` is `h100`.
#[must_use]
pub(crate) fn model_name(name: &str) -> String {
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
    fn a_library_that_is_not_there_is_no_error() {
        assert!(load(Some(Path::new("/does/not/exist.so"))).unwrap().is_none());
    }
}
