//! What one look at a GPU showed.

/// Whether the driver answered for a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It did.
    Yes,
    /// It says that the GPU is lost.
    Lost,
    /// It says something else.
    Failed(String),
    /// It has not answered in time.
    Hung,
}

/// What the driver says that a GPU needs, as NVML numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing, as far as it says.
    #[default]
    None,
    /// A reset, once it is idle.
    DrainAndReset,
    /// A reset.
    Reset,
    /// An end of the traffic between it and other GPUs.
    DrainP2p,
    /// A boot of the machine.
    Reboot,
    /// Something that this version does not know, by its number.
    Other(u64),
}

impl Recovery {
    /// The meaning of `nvmlDeviceGpuRecoveryAction_t`.
    #[must_use]
    pub fn of_nvml(number: u64) -> Recovery {
        match number {
            0 => Recovery::None,
            1 => Recovery::Reset,
            2 => Recovery::Reboot,
            3 => Recovery::DrainP2p,
            4 => Recovery::DrainAndReset,
            other => Recovery::Other(other),
        }
    }
}

/// A PCI link: lanes and generation, as they are and as they could be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Lanes now.
    pub width: u32,
    /// Lanes that GPU and slot have.
    pub width_max: u32,
    /// Generation now. It falls while a GPU is idle, to save power.
    pub generation: u32,
    /// Generation that GPU and slot have.
    pub generation_max: u32,
}

/// What one look at a GPU, or at one MIG instance, showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// UUID of the device.
    pub uuid: String,
    /// Whether there was an answer. Without one the rest says nothing.
    pub answer: Answer,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Memory that is in use, in bytes.
    pub used_bytes: u64,
    /// Errors of its memory since the driver was loaded that could not be corrected.
    pub uncorrected: u64,
    /// Whether a repair of its memory waits for a reset.
    pub reset_due: bool,
    /// Whether a repair of its memory failed.
    pub repair_failed: bool,
    /// What the driver says that it needs.
    pub recovery: Recovery,
    /// Its link, where that is known.
    pub link: Option<Link>,
    /// What slows it down beyond what it is built for, for people; empty: nothing.
    pub slowed_by: String,
    /// Processes on it.
    pub processes: Vec<u32>,
    /// Those of them that belong to no attempt.
    pub foreign: Vec<u32>,
}

impl Reading {
    /// A GPU that answered, with nothing on it.
    #[must_use]
    pub fn clean(uuid: &str, memory_bytes: u64) -> Reading {
        Reading {
            uuid: uuid.to_string(),
            answer: Answer::Yes,
            memory_bytes,
            used_bytes: 0,
            uncorrected: 0,
            reset_due: false,
            repair_failed: false,
            recovery: Recovery::None,
            link: None,
            slowed_by: String::new(),
            processes: Vec::new(),
            foreign: Vec::new(),
        }
    }

    /// Whether much of the memory is in use, and nobody uses it. Drivers keep some for themselves.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        const OWN_BYTES: u64 = 1 << 30;
        self.processes.is_empty() && self.used_bytes > OWN_BYTES + self.memory_bytes / 50
    }
}
