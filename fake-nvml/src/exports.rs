//! The functions of the library that `nvml-wrapper` calls for what we ask.
//!
//! A handle is the position of a UUID in a list that only grows, so that a GPU which goes and comes
//! back has the handle that it had.
#![allow(unsafe_code)]
// A C interface has no docs of ours, and is reached by name alone.
#![allow(missing_docs, unreachable_pub)]

use crate::script::{self, Gpu};
use nvml_wrapper_sys::bindings::field_id::{
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING,
};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlFieldValue_t, nvmlMemory_v2_t,
    nvmlPciInfo_t, nvmlProcessInfo_t, nvmlUtilization_t,
};
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

type Answer = c_uint;
const OK: Answer = 0;
const INVALID_ARGUMENT: Answer = 2;
const NOT_SUPPORTED: Answer = 3;
const NOT_FOUND: Answer = 6;
const INSUFFICIENT_SIZE: Answer = 7;
const TIMEOUT: Answer = 10;
const LOST: Answer = 15;
/// The event of an XID.
const XID: c_ulonglong = 8;
/// The kind of a number in 32 bits.
const UNSIGNED_INT: c_uint = 1;
/// Between two looks at the file while a call waits.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Known {
    /// UUIDs by handle.
    uuids: Vec<String>,
    /// Errors that were handed out: UUID, and their number.
    told: BTreeSet<(String, u32)>,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { uuids: Vec::new(), told: BTreeSet::new() });

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handle of a UUID: never null.
fn handle(uuid: &str) -> nvmlDevice_t {
    let uuids = &mut known().uuids;
    let at = uuids.iter().position(|one| one == uuid).unwrap_or_else(|| {
        uuids.push(uuid.to_string());
        uuids.len() - 1
    });
    (at + 1) as nvmlDevice_t
}

/// The GPU of a handle, once it answers.
fn gpu(device: nvmlDevice_t) -> Result<Gpu, Answer> {
    let uuid = known().uuids.get((device as usize).wrapping_sub(1)).cloned();
    let uuid = uuid.ok_or(INVALID_ARGUMENT)?;
    loop {
        let is_it = |gpu: Gpu| {
            let instance = gpu.instances().into_iter().find(|one| one.uuid == uuid);
            if gpu.uuid == uuid { Some(gpu) } else { instance }
        };
        let found = script::gpus().into_iter().find_map(is_it).ok_or(LOST)?;
        if !found.hang {
            return if found.lost { Err(LOST) } else { Ok(found) };
        }
        sleep(LOOK);
    }
}

/// Writes an answer to where the caller wants it.
fn put<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: callers of this interface pass a place of the type that the function has, or null.
    unsafe { to.write(value) };
    OK
}

/// Writes what is known of a GPU.
fn of<T>(device: nvmlDevice_t, to: *mut T, value: impl FnOnce(&Gpu) -> T) -> Answer {
    match gpu(device) {
        Ok(gpu) => put(to, value(&gpu)),
        Err(answer) => answer,
    }
}

/// Writes a text with its end, if there is room.
fn text(to: *mut c_char, room: c_uint, value: &str) -> Answer {
    if to.is_null() {
        return INVALID_ARGUMENT;
    }
    if value.len() >= room as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: callers pass as many bytes as they say; the text and its end are no more.
    let room = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), value.len() + 1) };
    let (body, end) = room.split_at_mut(value.len());
    body.copy_from_slice(value.as_bytes());
    end.fill(0);
    OK
}

/// The number of a GPU among those that there are.
fn number(uuid: &str) -> c_uint {
    let at = script::gpus().iter().position(|gpu| gpu.uuid == uuid);
    at.and_then(|at| c_uint::try_from(at).ok()).unwrap_or(0)
}

/// Answers each question for a number by itself.
fn fields(gpu: &Gpu, count: c_int, to: *mut nvmlFieldValue_t) -> Answer {
    let Ok(count) = usize::try_from(count) else { return INVALID_ARGUMENT };
    if to.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: callers pass as many of them as they say.
    for field in unsafe { std::slice::from_raw_parts_mut(to, count) } {
        let number = match field.fieldId {
            NVML_FI_DEV_REMAPPED_PENDING => (gpu.remap == 1).into(),
            NVML_FI_DEV_REMAPPED_FAILURE => (gpu.remap == 2).into(),
            NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => gpu.recovery,
            _ => {
                field.nvmlReturn = NOT_SUPPORTED;
                continue;
            }
        };
        field.nvmlReturn = OK;
        field.valueType = UNSIGNED_INT;
        field.value.uiVal = number;
    }
    OK
}

/// Lists processes.
fn processes(pids: &[u32], count: *mut c_uint, to: *mut nvmlProcessInfo_t) -> Answer {
    if count.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: callers pass the place of a number that says how much room there is.
    let room = unsafe { count.read() } as usize;
    let all = put(count, c_uint::try_from(pids.len()).unwrap_or(0));
    if pids.len() > room {
        return INSUFFICIENT_SIZE;
    }
    for (at, pid) in pids.iter().enumerate() {
        let process = nvmlProcessInfo_t {
            pid: *pid,
            usedGpuMemory: 1 << 20,
            gpuInstanceId: c_uint::MAX,
            computeInstanceId: c_uint::MAX,
        };
        // SAFETY: there is room for so many, as was checked.
        put(unsafe { to.add(at) }, process);
    }
    all
}

/// Declares what the library exports.
macro_rules! exports {
    ($(fn $name:ident($($arg:ident: $of:ty),* $(,)?) $body:block)+) => {
        $(
            // SAFETY: no other function of the process has the name of one of NVML.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($($arg: $of),*) -> Answer $body
        )+
    };
}

exports! {
    fn nvmlInit_v2() { OK }
    fn nvmlInitWithFlags(_flags: c_uint) { OK }
    fn nvmlShutdown() { OK }
    fn nvmlSystemGetDriverVersion(to: *mut c_char, room: c_uint) { text(to, room, "550.54.15") }
    fn nvmlSystemGetNVMLVersion(to: *mut c_char, room: c_uint) { text(to, room, "12.550.54.15") }
    fn nvmlSystemGetCudaDriverVersion_v2(to: *mut c_int) { put(to, 12_040) }
    fn nvmlSystemGetCudaDriverVersion(to: *mut c_int) { put(to, 12_040) }
    fn nvmlDeviceGetCount_v2(to: *mut c_uint) {
        put(to, c_uint::try_from(script::gpus().len()).unwrap_or(0))
    }
    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, to: *mut nvmlDevice_t) {
        match script::gpus().get(index as usize) {
            None => INVALID_ARGUMENT,
            Some(gpu) if gpu.lost => LOST,
            Some(gpu) => put(to, handle(&gpu.uuid)),
        }
    }
    fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, to: *mut nvmlDevice_t) {
        if uuid.is_null() {
            return INVALID_ARGUMENT;
        }
        // SAFETY: callers pass a text with its end.
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
        match script::gpus().iter().any(|gpu| gpu.uuid == uuid) {
            true => put(to, handle(&uuid)),
            false => NOT_FOUND,
        }
    }
    fn nvmlDeviceGetName(device: nvmlDevice_t, to: *mut c_char, room: c_uint) {
        gpu(device).map_or_else(|answer| answer, |gpu| text(to, room, &gpu.name))
    }
    fn nvmlDeviceGetUUID(device: nvmlDevice_t, to: *mut c_char, room: c_uint) {
        gpu(device).map_or_else(|answer| answer, |gpu| text(to, room, &gpu.uuid))
    }
    fn nvmlDeviceGetIndex(device: nvmlDevice_t, to: *mut c_uint) {
        of(device, to, |gpu| number(&gpu.uuid))
    }
    fn nvmlDeviceGetMinorNumber(device: nvmlDevice_t, to: *mut c_uint) {
        of(device, to, |gpu| number(&gpu.uuid))
    }
    fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, to: *mut nvmlPciInfo_t) {
        of(device, to, |gpu| {
            let bus = 0x10 + number(&gpu.uuid);
            let mut pci = nvmlPciInfo_t {
                busIdLegacy: [0; 16],
                domain: 0,
                bus,
                device: 0,
                pciDeviceId: 0x2330_10de,
                pciSubSystemId: 0,
                busId: [0; 32],
            };
            for (to, byte) in pci.busId.iter_mut().zip(format!("00000000:{bus:02X}:00.0").bytes()) {
                *to = byte as c_char;
            }
            for (to, byte) in pci.busIdLegacy.iter_mut().zip(format!("0000:{bus:02X}:00.0").bytes())
            {
                *to = byte as c_char;
            }
            pci
        })
    }
    fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, to: *mut nvmlMemory_v2_t) {
        of(device, to, |gpu| nvmlMemory_v2_t {
            version: 0,
            total: gpu.memory,
            reserved: 0,
            free: gpu.memory.saturating_sub(gpu.used),
            used: gpu.used,
        })
    }
    fn nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, to: *mut nvmlUtilization_t) {
        of(device, to, |gpu| {
            let gpu = if gpu.pids.is_empty() { 0 } else { 90 };
            nvmlUtilization_t { gpu, memory: 0 }
        })
    }
    fn nvmlDeviceGetTemperature(device: nvmlDevice_t, _sensor: c_int, to: *mut c_uint) {
        of(device, to, |_| 41)
    }
    fn nvmlDeviceGetPowerUsage(device: nvmlDevice_t, to: *mut c_uint) { of(device, to, |_| 70_000) }
    fn nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, to: *mut c_uint) {
        of(device, to, |_| 700_000)
    }
    fn nvmlDeviceGetClockInfo(device: nvmlDevice_t, _clock: c_uint, to: *mut c_uint) {
        of(device, to, |_| 345)
    }
    fn nvmlDeviceGetMaxClockInfo(device: nvmlDevice_t, _clock: c_uint, to: *mut c_uint) {
        of(device, to, |_| 1_980)
    }
    fn nvmlDeviceGetCurrentClocksThrottleReasons(device: nvmlDevice_t, to: *mut c_ulonglong) {
        of(device, to, |gpu| gpu.throttle)
    }
    fn nvmlDeviceGetMigMode(device: nvmlDevice_t, now: *mut c_uint, next: *mut c_uint) {
        match gpu(device) {
            Err(answer) => answer,
            Ok(gpu) if gpu.mig.is_empty() => NOT_SUPPORTED,
            Ok(_) => match put(now, 1) {
                OK => put(next, 1),
                answer => answer,
            }
        }
    }
    fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, to: *mut c_uint) {
        of(device, to, |_| 7)
    }
    fn nvmlDeviceGetMigDeviceHandleByIndex(
        device: nvmlDevice_t,
        index: c_uint,
        to: *mut nvmlDevice_t,
    ) {
        match gpu(device) {
            Err(answer) => answer,
            Ok(gpu) => match gpu.instances().get(index as usize) {
                Some(instance) => put(to, handle(&instance.uuid)),
                None => NOT_FOUND,
            }
        }
    }
    fn nvmlDeviceGetEccMode(device: nvmlDevice_t, now: *mut c_uint, next: *mut c_uint) {
        match of(device, now, |_| 1) {
            OK => put(next, 1),
            answer => answer,
        }
    }
    fn nvmlDeviceGetTotalEccErrors(
        device: nvmlDevice_t,
        kind: c_uint,
        _counter: c_uint,
        to: *mut c_ulonglong,
    ) {
        of(device, to, |gpu| if kind == 1 { gpu.uncorrected } else { 0 })
    }
    fn nvmlDeviceGetRetiredPagesPendingStatus(device: nvmlDevice_t, to: *mut c_uint) {
        of(device, to, |gpu| gpu.pending.into())
    }
    fn nvmlDeviceGetFieldValues(device: nvmlDevice_t, count: c_int, to: *mut nvmlFieldValue_t) {
        match gpu(device) {
            Ok(gpu) => fields(&gpu, count, to),
            Err(answer) => answer,
        }
    }
    fn nvmlDeviceGetCurrPcieLinkWidth(device: nvmlDevice_t, to: *mut c_uint) {
        of(device, to, |gpu| gpu.width)
    }
    fn nvmlDeviceGetMaxPcieLinkWidth(device: nvmlDevice_t, to: *mut c_uint) {
        of(device, to, |_| 16)
    }
    fn nvmlDeviceGetCurrPcieLinkGeneration(device: nvmlDevice_t, to: *mut c_uint) {
        of(device, to, |_| 5)
    }
    fn nvmlDeviceGetMaxPcieLinkGeneration(device: nvmlDevice_t, to: *mut c_uint) {
        of(device, to, |_| 5)
    }
    fn nvmlDeviceGetTopologyCommonAncestor(
        one: nvmlDevice_t,
        _other: nvmlDevice_t,
        to: *mut c_uint,
    ) {
        of(one, to, |_| 20)
    }
    fn nvmlDeviceGetComputeRunningProcesses_v3(
        device: nvmlDevice_t,
        count: *mut c_uint,
        to: *mut nvmlProcessInfo_t,
    ) {
        gpu(device).map_or_else(|answer| answer, |gpu| processes(&gpu.pids, count, to))
    }
    fn nvmlDeviceGetGraphicsRunningProcesses_v3(
        device: nvmlDevice_t,
        count: *mut c_uint,
        to: *mut nvmlProcessInfo_t,
    ) {
        gpu(device).map_or_else(|answer| answer, |_| processes(&[], count, to))
    }
    fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, to: *mut c_ulonglong) {
        of(device, to, |_| XID)
    }
    fn nvmlEventSetCreate(to: *mut nvmlEventSet_t) { put(to, 1 as nvmlEventSet_t) }
    fn nvmlEventSetFree(_set: nvmlEventSet_t) { OK }
    fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, _types: c_ulonglong, _set: nvmlEventSet_t) {
        match gpu(device) {
            Err(answer) => answer,
            Ok(gpu) => {
                // Errors of before are not told.
                let old = gpu.xids.iter().map(|(nth, _)| (gpu.uuid.clone(), *nth));
                known().told.extend(old);
                OK
            }
        }
    }
    fn nvmlEventSetWait_v2(_set: nvmlEventSet_t, to: *mut nvmlEventData_t, timeout_ms: c_uint) {
        script::note_listener();
        let end = Instant::now() + Duration::from_millis(timeout_ms.into());
        loop {
            for gpu in script::gpus() {
                for (nth, xid) in &gpu.xids {
                    if known().told.insert((gpu.uuid.clone(), *nth)) {
                        return put(to, nvmlEventData_t {
                            device: handle(&gpu.uuid),
                            eventType: XID,
                            eventData: (*xid).into(),
                            gpuInstanceId: c_uint::MAX,
                            computeInstanceId: c_uint::MAX,
                        });
                    }
                }
            }
            if Instant::now() >= end {
                return TIMEOUT;
            }
            sleep(LOOK);
        }
    }
}

/// What an answer means.
// SAFETY: no other function of the process has this name.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_answer: Answer) -> *const c_char {
    c"an error of the stand-in".as_ptr()
}
