//! Promise: whoever sits between the gateway and its TPM cannot alter a command or an answer unnoticed, nor read what is
//! secret.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tpm::{
    Error, Template, Tpm, sha256,
    transport::{self, Transport},
};

use crate::{keys::salted, simulator::Simulator};

/// What the interposer does with the next exchange.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mischief {
    FlipInCommand(usize),
    FlipInAnswer(usize),
    /// Answers of random bytes, of the right length or not.
    Garble(u64),
}

#[derive(Default)]
struct Tap {
    mischief: Option<Mischief>,
    /// Lengths of the last command and answer.
    lengths: (usize, usize),
    /// Everything that went over the wire.
    seen: Vec<u8>,
}

struct Interposer {
    inner: Box<dyn Transport>,
    tap: Arc<Mutex<Tap>>,
}

impl Transport for Interposer {
    fn exchange(&mut self, command: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
        let mut tap = self.tap.lock().unwrap();
        let mut command = command.to_vec();
        if let Some(Mischief::FlipInCommand(bit)) = tap.mischief {
            flip(&mut command, bit);
        }
        let mut answer = self.inner.exchange(&command, patience)?;
        tap.lengths = (command.len(), answer.len());
        tap.seen.extend(&command);
        tap.seen.extend(&answer);
        if let Some(Mischief::FlipInAnswer(bit)) = tap.mischief {
            flip(&mut answer, bit);
        }
        if let Some(Mischief::Garble(seed)) = &mut tap.mischief {
            answer = garbled(seed);
        }
        Ok(answer)
    }

    // The test decides what is flushed: nothing.
    fn is_raw(&self) -> bool {
        false
    }
}

fn flip(bytes: &mut [u8], bit: usize) {
    // A refusal is shorter than the answer that was measured.
    let at = (bit / 8) % bytes.len();
    bytes[at] ^= 1 << (bit % 8);
}

/// Bytes that follow from the seed alone; every other time they say their own length and success.
fn garbled(seed: &mut u64) -> Vec<u8> {
    let mut next = || {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as u8
    };
    let mut bytes: Vec<u8> = (0..usize::from(next())).map(|_| next()).collect();
    if next() % 2 == 0 && bytes.len() >= 10 {
        let length = bytes.len() as u8;
        bytes[..10].copy_from_slice(&[0x80, 1 + next() % 2, 0, 0, 0, length, 0, 0, 0, 0]);
        // Short fields are likelier to be whole.
        bytes[10..].iter_mut().for_each(|byte| *byte %= 24);
    }
    bytes
}

fn tapped(simulator: &Simulator) -> (Tpm, Arc<Mutex<Tap>>) {
    let tap = Arc::new(Mutex::new(Tap::default()));
    let inner = transport::open(&simulator.address()).unwrap();
    let tpm = Tpm::over(Box::new(Interposer {
        inner,
        tap: Arc::clone(&tap),
    }))
    .unwrap();
    (tpm, tap)
}

/// Flips every eighth bit or so of a signing command and its answer: never does a wrong signature come out as a good one,
/// and never one over another digest.
#[test]
fn a_flipped_bit_in_a_command_or_answer_never_passes() {
    let simulator = Simulator::new();
    let (mut tpm, storage) = salted(&simulator);
    let blob = tpm.create(&storage, &Template::signing()).unwrap();
    drop(tpm);
    let (mut tpm, tap) = tapped(&simulator);
    tpm.salt_to(storage.handle(), Some(storage.name())).unwrap();
    let key = tpm.load(&storage, &blob).unwrap();
    let public = tpm.read_public(key.handle()).unwrap().unwrap();
    tpm.sign(&key, &sha256(&[b"honest"])).unwrap();
    let (command, answer) = tap.lock().unwrap().lengths;
    let flips = (0..command * 8).step_by(7).map(Mischief::FlipInCommand);
    let flips = flips.chain((0..answer * 8).step_by(7).map(Mischief::FlipInAnswer));
    let mut noticed = 0;
    for (number, flip) in flips.enumerate() {
        let message = format!("reading {number}");
        // The session stands before the mischief begins.
        tpm.random().unwrap();
        tap.lock().unwrap().mischief = Some(flip);
        let result = tpm.sign(&key, &sha256(&[message.as_bytes()]));
        tap.lock().unwrap().mischief = None;
        match result {
            Ok(signature) => assert!(
                public.key().verifies(message.as_bytes(), &signature),
                "{number}"
            ),
            Err(_) => noticed += 1,
        }
        // A command that became another may have ended what we held.
        for session in tpm.handles(0x0200_0000).unwrap() {
            tpm.flush(session).unwrap();
        }
    }
    assert!(
        noticed > (command + answer),
        "only {noticed} flips were noticed"
    );
}

#[test]
fn an_answer_from_a_key_that_was_swapped_in_is_refused() {
    let simulator = Simulator::new();
    let (mut tpm, storage) = salted(&simulator);
    let blobs = [(); 2].map(|()| tpm.create(&storage, &Template::signing()).unwrap());
    let [ours, theirs] = blobs
        .each_ref()
        .map(|blob| tpm.load(&storage, blob).unwrap());
    let disguised = tpm::Entity::named(theirs.handle(), ours.name().to_vec());
    let error = tpm.sign(&disguised, &[7; 32]).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

#[test]
fn random_bytes_and_digests_do_not_cross_the_bus_in_the_clear() {
    let simulator = Simulator::new();
    let (_, storage) = salted(&simulator);
    let (mut tpm, tap) = tapped(&simulator);
    tpm.salt_to(storage.handle(), Some(storage.name())).unwrap();
    let secret = tpm.random().unwrap();
    let seen = tap.lock().unwrap().seen.clone();
    assert!(!seen.windows(32).any(|window| window == secret));
    assert!(!seen.windows(8).any(|window| window == &secret[..8]));
}

#[test]
fn answers_of_random_bytes_are_refused_and_never_end_the_program() {
    let simulator = Simulator::new();
    let (_, storage) = salted(&simulator);
    let (mut tpm, tap) = tapped(&simulator);
    tpm.salt_to(storage.handle(), Some(storage.name())).unwrap();
    for seed in 0..2_000 {
        tap.lock().unwrap().mischief = Some(Mischief::Garble(seed));
        assert!(tpm.random().is_err(), "seed {seed}");
        assert!(tpm.sign(&storage, &[7; 32]).is_err(), "seed {seed}");
        // Unprotected: any answer that reads is taken, but a public key has to be one.
        let _ = tpm.handles(0x8100_0000);
        let _ = tpm.property(0x200);
        let _ = tpm.read_public(storage.handle());
        tap.lock().unwrap().mischief = None;
        // What the TPM opened while its answers were hidden.
        for session in tpm.handles(0x0200_0000).unwrap() {
            tpm.flush(session).unwrap();
        }
    }
    tpm.random().unwrap();
}
