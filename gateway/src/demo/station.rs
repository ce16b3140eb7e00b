//! A simulated weather station: NMEA 0183 on a pseudo-terminal, a round of sentences a second.
//!
//! Invariant: a station that nobody listens to never blocks; what does not fit is not sent. Driver.

use std::{io, path::PathBuf, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_serial::{SerialPort, SerialStream};
use tokio_util::sync::CancellationToken;

use crate::fieldbus::simulate::weather;

/// Between two rounds of sentences.
const ROUND: Duration = Duration::from_secs(1);

/// Starts the station and answers with the path of its serial port; needs a tokio runtime.
///
/// # Errors
/// The machine has no pseudo-terminal left.
pub(crate) fn nmea_station(cancel: CancellationToken) -> io::Result<PathBuf> {
    let (mut wire, far) = SerialStream::pair()?;
    let path = far.name().ok_or(io::ErrorKind::NotFound)?.into();
    tokio::spawn(async move {
        // While it is held, the wire stays up between two listeners.
        let _far = far;
        tokio::select! {
            () = cancel.cancelled() => {}
            () = talk(&mut wire) => {}
        }
    });
    Ok(path)
}

async fn talk(wire: &mut SerialStream) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut seconds = 0.0;
    loop {
        rounds.tick().await;
        for sentence in weather(seconds) {
            // A full buffer means that nobody listens.
            let _sent = wire.try_write(sentence.as_bytes());
        }
        seconds += ROUND.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::mpsc, time::timeout};

    use super::*;
    use crate::{
        fieldbus::{Event, serial},
        reading::Reading,
    };

    async fn next_readings(events: &mut mpsc::Receiver<Event>) -> Vec<Reading> {
        loop {
            let event = timeout(Duration::from_secs(10), events.recv())
                .await
                .unwrap();
            if let Event::Readings(readings) = event.unwrap() {
                return readings;
            }
        }
    }

    #[tokio::test]
    async fn what_the_station_says_is_read_by_the_serial_line() {
        let cancel = CancellationToken::new();
        let port = nmea_station(cancel.clone()).unwrap();
        let sensor = serde_json::from_value(serde_json::json!({
            "name": "weather", "port": port, "decode": { "nmea": [] },
        }));
        let (sender, mut events) = mpsc::channel(16);
        let line = serial::start(sensor.unwrap(), sender, cancel.clone());
        let mut missing = vec![
            "wind-angle-true",
            "wind-speed-true",
            "air-temperature",
            "humidity",
        ];
        missing.push("water-temperature");
        while !missing.is_empty() {
            for reading in next_readings(&mut events).await {
                missing.retain(|point| *point != &*reading.point);
            }
        }
        assert_eq!(line.status().bad_frames, 0);
        cancel.cancel();
        line.stopped().await;
    }
}
