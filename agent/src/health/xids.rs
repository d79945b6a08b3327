//! The thread that waits for errors of the driver: NVML hands them out, or else the kernel's
//! messages tell.

use super::Options;
use super::kmsg::{Kmsg, same_device};
use crate::inventory::gpu;
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use yard_common::limits::GPU_EVENTS_MAX;

/// How long one wait for an error lasts.
const WAIT_MS: u32 = 500;
/// How often the kernel's messages are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a library is used until it is loaded anew: it lists the GPUs of that time.
const RELOAD: Duration = Duration::from_secs(300);
/// The wait before the next try to load the library.
const RETRY: Duration = Duration::from_secs(5);

/// An error that the driver reported of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xid {
    /// UUID of the GPU; that of the whole one, if it is split.
    pub(crate) gpu: String,
    pub(crate) number: u32,
}

/// Errors of the driver, as they come.
#[derive(Debug)]
pub(crate) struct Xids {
    queue: mpsc::Receiver<Xid>,
    stop: Arc<AtomicBool>,
}

impl Xids {
    /// Without GPUs nothing comes.
    pub(crate) fn none() -> Xids {
        let (_, queue) = mpsc::channel(1);
        Xids { queue, stop: Arc::default() }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(crate) fn start(options: &Options) -> std::io::Result<Xids> {
        let (sender, queue) = mpsc::channel(GPU_EVENTS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let listener = Listener { options: options.clone(), sender, stop: stop.clone() };
        // As with the probe: it may hang in the driver, and is never waited for.
        std::thread::Builder::new().name("yard-xids".into()).spawn(move || listener.run())?;
        Ok(Xids { queue, stop })
    }

    /// The next one; never returns where none can come. May be dropped.
    pub(crate) async fn next(&mut self) -> Xid {
        match self.queue.recv().await {
            Some(xid) => xid,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Xids {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Listener {
    options: Options,
    sender: mpsc::Sender<Xid>,
    stop: Arc<AtomicBool>,
}

impl Listener {
    fn run(&self) {
        // Opened first, so that nothing is missed while the library is tried.
        let mut kmsg = Kmsg::open(&self.options.kmsg).ok();
        while !self.is_over() {
            let listened = match gpu::load(self.options.library.as_deref()) {
                Ok(Some(nvml)) => self.listen(&nvml, &mut kmsg),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = listened {
                tracing::debug!(%error, "errors of the driver are not heard");
            }
            self.pause();
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.sender.is_closed()
    }

    /// Waits; nobody waits for this thread when it is over.
    fn pause(&self) {
        if !self.is_over() {
            sleep(RETRY);
        }
    }

    /// Listens for as long as the library is good.
    fn listen(&self, nvml: &Nvml, kmsg: &mut Option<Kmsg>) -> Result<(), NvmlError> {
        let (end, gpus) = (Instant::now() + RELOAD, gpus_of(nvml)?);
        let Some(set) = register(nvml)? else {
            self.listen_to_kernel(&gpus, kmsg, end);
            return Ok(());
        };
        while !self.is_over() && Instant::now() < end {
            match set.wait(WAIT_MS) {
                Ok(event) => {
                    let number = match event.event_data {
                        Some(XidError::Value(number)) => u32::try_from(number).ok(),
                        Some(XidError::Unknown) | None => None,
                    };
                    let Some(number) = number else { continue };
                    // One that has fallen off the bus does not tell its name any more.
                    let named = event.device.uuid().ok();
                    if let Some(gpu) = named.or_else(|| from_kernel(&gpus, kmsg, number)) {
                        self.tell(Xid { gpu, number });
                    }
                }
                Err(NvmlError::Timeout) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn listen_to_kernel(&self, gpus: &[Gpu], kmsg: &mut Option<Kmsg>, end: Instant) {
        let Some(kmsg) = kmsg else { return };
        while !self.is_over() && Instant::now() < end {
            for (address, number) in kmsg.take() {
                if let Some(gpu) = at(gpus, &address) {
                    self.tell(Xid { gpu, number });
                }
            }
            sleep(LOOK);
        }
    }

    fn tell(&self, xid: Xid) {
        let (gpu, number) = (xid.gpu.clone(), xid.number);
        tracing::warn!(gpu, xid = number, "the driver reports an error");
        if self.sender.try_send(xid).is_err() {
            tracing::error!(gpu, xid = number, "too many errors at once; this one is not judged");
        }
    }
}

/// A GPU: its address on the PCI bus, and its UUID.
type Gpu = (String, String);

fn gpus_of(nvml: &Nvml) -> Result<Vec<Gpu>, NvmlError> {
    let mut gpus = Vec::new();
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index);
        if let Ok((pci, uuid)) = device.and_then(|one| Ok((one.pci_info()?, one.uuid()?))) {
            gpus.push((pci.bus_id, uuid));
        }
    }
    Ok(gpus)
}

fn at(gpus: &[Gpu], address: &str) -> Option<String> {
    let found = gpus.iter().find(|(own, _)| same_device(address, own));
    found.map(|(_, uuid)| uuid.clone())
}

/// Of which GPU the kernel tells the same; if there is only one, it is that.
fn from_kernel(gpus: &[Gpu], kmsg: &mut Option<Kmsg>, number: u32) -> Option<String> {
    if let [(_, only)] = gpus {
        return Some(only.clone());
    }
    let told = kmsg.as_mut().map(Kmsg::take).unwrap_or_default();
    let same = told.iter().rev().find(|(_, xid)| *xid == number);
    same.and_then(|(address, _)| at(gpus, address))
}

/// A set that all GPUs report to; none if no GPU can.
fn register(nvml: &Nvml) -> Result<Option<nvml_wrapper::EventSet<'_>>, NvmlError> {
    let mut able = Vec::new();
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index);
        let xids = EventTypes::CRITICAL_XID_ERROR;
        match device.and_then(|one| Ok((one.supported_event_types()?, one))) {
            Ok((types, device)) if types.contains(xids) => able.push(device),
            Ok(_) | Err(_) => {}
        }
    }
    if able.is_empty() {
        return Ok(None);
    }
    let mut set = match nvml.create_event_set() {
        Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::NotSupported) => return Ok(None),
        set => set?,
    };
    for device in able {
        set = device
            .register_events(EventTypes::CRITICAL_XID_ERROR, set)
            .map_err(|failed| failed.error)?;
    }
    Ok(Some(set))
}
