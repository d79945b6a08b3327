//! Telling the service manager how this process is: ready, about to stop, alive.
//!
//! The protocol is that of `sd_notify`: lines in one datagram, to a socket that the environment
//! names. Where it names none, nobody wants to know, and nothing is sent.

use std::ffi::{OsStr, OsString};
use std::future::pending;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How long the manager may take to take a message: a process that is told to hurry must not hang
/// on it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a process says that it lives, of the time that it has for it.
const BEATS: u32 = 3;

/// The service manager, if one started this process.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How long it may hear nothing.
    silence: Option<Duration>,
}

impl Manager {
    /// The one that the environment of this process names.
    #[must_use]
    pub fn of_process() -> Manager {
        let variable = |name: &str| std::env::var_os(name);
        let found = Manager::find(variable, std::process::id());
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager cannot be told anything");
            Manager::default()
        })
    }

    fn find(variable: impl Fn(&str) -> Option<OsString>, own: u32) -> io::Result<Manager> {
        let named = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let Some(name) = named else { return Ok(Manager::default()) };
        let address = address(&name)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        // A parent's watch is not ours.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(own));
        let silence = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0);
        Ok(Manager { socket: Some((socket, address)), silence: silence.map(Duration::from_micros) })
    }

    /// It serves: whatever is to start after it may start.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// It is about to end, as it was told to.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// It lives. Not to be said by a part that goes on when others hang.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// When to say that it lives.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse(self.silence.map(|silence| {
            let mut beats = interval(silence / BEATS);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beats
        }))
    }

    fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, message, "the service manager does not listen");
        }
    }
}

/// A path, or a name of the abstract kind, which begins with `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        _ => SocketAddr::from_pathname(name),
    }
}

/// The beat in which a process says that it lives; never, if nobody wants to hear it.
#[derive(Debug)]
pub struct Pulse(Option<Interval>);

impl Pulse {
    /// Returns when it is time.
    pub async fn beat(&mut self) {
        match &mut self.0 {
            Some(beats) => drop(beats.tick().await),
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(variables: &[(&str, &str)]) -> Manager {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Manager::find(find, 7).unwrap()
    }

    #[test]
    fn the_manager_hears_every_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = manager(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        manager.ready();
        manager.alive();
        manager.stopping();
        let hear = || {
            let mut bytes = [0; 64];
            let count = socket.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        assert_eq!([hear(), hear(), hear()], ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
        drop(socket);
        // One that is gone harms nobody.
        manager.ready();
    }

    #[test]
    fn names_of_the_abstract_kind_are_understood() {
        let name = format!("yard-notify-test-{}", std::process::id());
        let socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        manager(&[("NOTIFY_SOCKET", &format!("@{name}"))]).ready();
        let mut bytes = [0; 64];
        assert_eq!(socket.recv(&mut bytes).unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watched_process_beats_thrice_as_often_as_it_must() {
        let socket = ("NOTIFY_SOCKET", "/nowhere");
        let watched = [socket, ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "7")];
        let mut pulse = manager(&watched).pulse();
        pulse.beat().await;
        let begun = tokio::time::Instant::now();
        pulse.beat().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        for variables in [
            &[socket][..],
            &[socket, ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "8")],
            &[("WATCHDOG_USEC", "3000000")],
        ] {
            assert_eq!(manager(variables).silence, None, "{variables:?}");
        }
    }

    #[test]
    fn without_a_manager_nothing_is_sent() {
        let nobody = manager(&[]);
        assert!(nobody.socket.is_none());
        nobody.ready();
        assert!(manager(&[("NOTIFY_SOCKET", "")]).socket.is_none());
    }
}
