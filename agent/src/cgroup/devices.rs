//! The device files of GPUs: those of an assignment, and no others, may be opened in its group.

use super::{CgroupError, Group};
use crate::launch::GrantedGpu;
use crate::sys::{DeviceRule, filter_devices};
use minicbor::{Decode, Encode};
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use yard_common::limits::NODE_DEVICES_MAX;

/// Where the driver of the GPUs shows which device file is which.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GpuNodes {
    /// A directory with one for each GPU, in which a file `information` names UUID and minor.
    #[n(0)]
    pub directory: String,
    /// The major number of their device files.
    #[n(1)]
    pub major: u32,
    /// Minors of the driver itself, which every program needs.
    #[n(2)]
    pub common: Vec<u32>,
}

impl Default for GpuNodes {
    /// Of NVIDIA's driver; the common ones are `nvidia-modeset` and `nvidiactl`.
    fn default() -> GpuNodes {
        let directory = "/proc/driver/nvidia/gpus".to_string();
        GpuNodes { directory, major: 195, common: vec![254, 255] }
    }
}

impl GpuNodes {
    /// UUID and minor of each GPU.
    fn found(&self) -> Vec<(String, u32)> {
        let entries = fs::read_dir(Path::new(&self.directory)).into_iter().flatten().flatten();
        let read = |entry: fs::DirEntry| {
            let text = fs::read_to_string(entry.path().join("information")).ok()?;
            let value = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                Some(line.trim_start_matches(':').trim().to_string())
            };
            Some((value("GPU UUID")?, value("Device Minor")?.parse().ok()?))
        };
        entries.take(NODE_DEVICES_MAX).filter_map(read).collect()
    }

    /// What an assignment with these GPUs may open. None: the driver shows no GPU, or not all that
    /// were granted, as with parts of one (MIG), which are behind the device file of the whole.
    pub(crate) fn rule(&self, granted: &[GrantedGpu]) -> Option<DeviceRule> {
        let found = self.found();
        let minor = |gpu: &GrantedGpu| {
            found.iter().find(|(uuid, _)| *uuid == gpu.uuid).map(|(_, minor)| *minor)
        };
        let mut allowed = granted.iter().map(minor).collect::<Option<Vec<u32>>>()?;
        allowed.extend(&self.common);
        let present = found.iter().map(|(_, minor)| *minor).collect();
        let rule = DeviceRule { major: self.major, allowed, present };
        (!found.is_empty()).then_some(rule)
    }
}

impl Group {
    /// Applies a rule, by whatever the machine has for it.
    ///
    /// # Errors
    /// If it cannot be applied.
    pub(crate) fn allow_devices(
        &self,
        rule: &DeviceRule,
        programs: bool,
    ) -> Result<(), CgroupError> {
        if let Some(path) = self.v2().filter(|_| programs) {
            let failed =
                |source| CgroupError { path: path.clone(), what: "filter the devices of", source };
            let group = fs::File::open(path).map_err(failed)?;
            return filter_devices(group.as_fd(), rule).map_err(failed);
        }
        let Some(at) = self.controller("devices") else { return Ok(()) };
        let path = at.join("devices.deny");
        for minor in rule.present.iter().filter(|minor| !rule.allowed.contains(minor)) {
            // What is not denied is allowed: a wildcard could not be narrowed again.
            let denied = fs::write(&path, format!("c {}:{minor} rwm", rule.major));
            denied.map_err(|source| CgroupError { path: path.clone(), what: "deny in", source })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> (tempfile::TempDir, GpuNodes) {
        let directory = tempfile::tempdir().unwrap();
        for (bus, uuid, minor) in [("0000:01:00.0", "GPU-a", 0), ("0000:02:00.0", "GPU-b", 1)] {
            let at = directory.path().join(bus);
            fs::create_dir(&at).unwrap();
            let text = format!(
                "Model: \t\t NVIDIA A100\nIRQ:   \t\t 17\nGPU UUID: \t {uuid}\n\
                 Bus Location: \t {bus}\nDevice Minor: \t {minor}\n"
            );
            fs::write(at.join("information"), text).unwrap();
        }
        let path = directory.path().to_string_lossy().into_owned();
        (directory, GpuNodes { directory: path, ..GpuNodes::default() })
    }

    fn gpu(uuid: &str) -> GrantedGpu {
        GrantedGpu { uuid: uuid.into(), index: 0 }
    }

    #[test]
    fn the_driver_says_which_file_is_whose() {
        let (_directory, nodes) = machine();
        let rule = nodes.rule(&[gpu("GPU-b")]).unwrap();
        assert_eq!((rule.major, rule.allowed), (195, vec![1, 254, 255]));
        assert_eq!(nodes.rule(&[]).unwrap().allowed, [254, 255]);
        assert_eq!(nodes.rule(&[gpu("GPU-b"), gpu("MIG-c")]), None);
        let none = GpuNodes { directory: "/nowhere".into(), ..nodes };
        assert_eq!(none.rule(&[]), None);
    }
}
