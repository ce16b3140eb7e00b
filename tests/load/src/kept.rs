//! What a SIGKILL takes of messages that were acknowledged for a session that is away. Driver.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;

use crate::{
    Target,
    packets::{self, Frame, Version, kind},
    wire::{Scratch, Wire},
};

/// Whose session it is.
const KEEPER: &str = "keeper";
const TOPIC: &str = "load/kept";

/// Without any message for this long, no more will come.
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct Keep {
    #[command(flatten)]
    target: Target,
    /// Messages
    #[arg(long, default_value_t = 200)]
    count: u16,
}

#[derive(Args)]
pub(crate) struct Take {
    #[command(flatten)]
    target: Target,
    /// Messages that were acknowledged
    #[arg(long, default_value_t = 200)]
    count: u16,
}

#[derive(Serialize)]
pub(crate) struct Kept {
    acknowledged: u16,
}

#[derive(Serialize)]
pub(crate) struct Taken {
    received: u16,
    lost: u16,
}

pub(crate) fn keep(plan: &Keep) -> Result<Kept> {
    let (port, tls) = (plan.target.port, plan.target.tls()?);
    let mut session = Wire::connect(port, tls.as_ref(), KEEPER, Version::V4, false)?;
    session.subscribe(&[TOPIC.to_owned()], 1, Version::V4)?;
    session.leave()?;
    let mut publisher = Wire::connect(port, tls.as_ref(), "publisher", Version::V4, true)?;
    let mut scratch = Scratch::new();
    for number in 1..=plan.count {
        let publish = (1, number);
        packets::publish(
            &mut publisher.output,
            TOPIC,
            publish,
            Version::V4,
            &number.to_be_bytes(),
        );
        publisher.flush()?;
        let mut acknowledged = false;
        while !acknowledged {
            publisher.read(&mut scratch, |frame, _| {
                acknowledged |= frame.kind() == kind::PUBACK && frame.packet_id() == number;
            })?;
        }
    }
    kill(Pid::from_raw(plan.target.pid), Signal::SIGKILL)?;
    Ok(Kept {
        acknowledged: plan.count,
    })
}

pub(crate) fn take(plan: &Take) -> Result<Taken> {
    let (port, tls) = (plan.target.port, plan.target.tls()?);
    let mut seen = vec![false; usize::from(plan.count)];
    let mut take = |frame: Frame, output: &mut Vec<u8>| {
        let Some(message) = frame
            .publish(Version::V4)
            .filter(|_| frame.kind() == kind::PUBLISH)
        else {
            return;
        };
        packets::acknowledge(output, kind::PUBACK, message.packet_id);
        if let [high, low] = message.payload {
            let number = usize::from(u16::from_be_bytes([*high, *low]));
            if let Some(seen) = seen.get_mut(number.wrapping_sub(1)) {
                *seen = true;
            }
        }
    };
    let mut session = Wire::resume(port, tls.as_ref(), KEEPER, Version::V4, false, &mut take)?;
    session.stop_waiting()?;
    let mut scratch = Scratch::new();
    let mut heard = Instant::now();
    while heard.elapsed() < SILENCE {
        session.flush()?;
        match session.read(&mut scratch, &mut take) {
            Ok(()) => heard = Instant::now(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let received = seen.iter().filter(|seen| **seen).count() as u16;
    Ok(Taken {
        received,
        lost: plan.count - received,
    })
}
