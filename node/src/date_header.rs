//! The `date` header of every answer, by the node's own clock.
//!
//! The HTTP library would read the system's clock for it, and a simulation could not be repeated:
//! the header's size, and so the bytes of every connection, would depend on when it ran.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use http::header::{DATE, HeaderValue};
use http::{HeaderMap, Response};
use tower::util::MapResponseLayer;

use crate::env::Clock;

/// The last date told, which serves for a second.
struct DateHeader {
    clock: Arc<dyn Clock>,
    told: Mutex<(u64, HeaderValue)>,
}

impl DateHeader {
    fn now(&self) -> HeaderValue {
        let second = self.clock.now_ms() / 1_000;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0 != second
            && let Some(date) = header_of(second)
        {
            *told = (second, date);
        }
        told.1.clone()
    }
}

/// `None` past the year 9999.
fn header_of(second: u64) -> Option<HeaderValue> {
    /// The first second of the year 10000, which the format can't say.
    const SECOND_END: u64 = 253_402_300_800;
    let time = UNIX_EPOCH + Duration::from_secs(Some(second).filter(|it| *it < SECOND_END)?);
    HeaderValue::from_str(&httpdate::fmt_http_date(time)).ok()
}

/// Puts the header into every answer.
pub(crate) fn layer<B>(
    clock: Arc<dyn Clock>,
) -> MapResponseLayer<impl Fn(Response<B>) -> Response<B> + Clone> {
    let first = header_of(0).expect("1970 is before 10000");
    let header = Arc::new(DateHeader { clock, told: Mutex::new((0, first)) });
    MapResponseLayer::new(move |mut response: Response<B>| {
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(DATE, header.now());
        response
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64);

    impl Clock for Fixed {
        fn now_ms(&self) -> u64 {
            self.0
        }
    }

    fn date_at(ms: u64) -> HeaderValue {
        let told = Mutex::new((0, header_of(0).expect("1970")));
        DateHeader { clock: Arc::new(Fixed(ms)), told }.now()
    }

    #[test]
    fn the_date_is_that_of_the_given_clock() {
        assert_eq!(date_at(1_795_000_000_999), "Wed, 18 Nov 2026 11:06:40 GMT");
    }

    #[test]
    fn a_clock_beyond_all_dates_does_no_harm() {
        assert_eq!(date_at(u64::MAX), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
