//! The clock of this process, as crates below us read it: in a simulation it shows simulated time.
//!
//! Our own code has no other clock than tokio's, but h2 goes by the system's to forget streams that
//! it has reset. How long a run takes in real time then decides what goes over a socket, and two
//! runs of one seed part (seed 22 of 8 s at 7e36dd9). The C library's function is replaced for
//! every program that has this crate; outside a simulation it asks the real one.
#![allow(unsafe_code, reason = "a function of the C library is replaced, and the real one called")]

use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds that the clock shows; 0 is the real time.
static SHOWS: AtomicU64 = AtomicU64::new(0);
/// Where it begins: whoever subtracts a while from the present must not fall below zero.
const BEGINS: Duration = Duration::from_secs(1_000_000);

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

/// From now on the process's clock shows so much simulated time.
pub(super) fn show(elapsed: Duration) {
    let shows = u64::try_from((BEGINS + elapsed).as_nanos()).unwrap_or(u64::MAX);
    SHOWS.store(shows, Ordering::Relaxed);
}

fn real() -> Option<ClockGettime> {
    static REAL: OnceLock<Option<ClockGettime>> = OnceLock::new();
    *REAL.get_or_init(|| {
        // SAFETY: the name ends with a zero, and what the C library has under it is this function.
        unsafe {
            let found = libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr());
            std::mem::transmute::<*mut libc::c_void, Option<ClockGettime>>(found)
        }
    })
}

/// `clock_gettime` of the C library.
///
/// # Safety
/// As there: `time` points to where the answer goes.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let shows = Duration::from_nanos(SHOWS.load(Ordering::Relaxed));
    if shows.is_zero() {
        // SAFETY: the caller promises what the real one asks for.
        return real().map_or(-1, |real| unsafe { real(clock, time) });
    }
    // SAFETY: the caller gives a place for the answer.
    unsafe {
        (*time).tv_sec = libc::time_t::try_from(shows.as_secs()).unwrap_or(libc::time_t::MAX);
        (*time).tv_nsec = shows.subsec_nanos().into();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the real clock is what is looked at")]
    fn outside_a_simulation_the_real_time_goes_on() {
        let began = std::time::Instant::now();
        while began.elapsed().is_zero() {}
        assert!(std::time::SystemTime::now() > std::time::UNIX_EPOCH + BEGINS * 100);
    }
}
