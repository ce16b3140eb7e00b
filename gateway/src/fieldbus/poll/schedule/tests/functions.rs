//! Commands to devices that know some function codes and not others.

use super::*;
use crate::{config::WriteSingle, reading::Value};

/// A device with eight holding registers and eight coils that knows the function codes `known`.
fn knowing(known: &'static [u8]) -> World {
    let (mut registers, mut coils) = ([7u16; 8], [false; 8]);
    Box::new(move |transaction: &Transaction, _| {
        let reply = if known.contains(&function(&transaction.request)) {
            obeyed(&mut registers, &mut coils, &transaction.request)
        } else {
            Reply::Exception(Exception(1))
        };
        (Duration::from_millis(20), reply)
    })
}

fn obeyed(registers: &mut [u16; 8], coils: &mut [bool; 8], request: &Request) -> Reply {
    let place = |address: u16, count: usize| usize::from(address)..usize::from(address) + count;
    let all = |span: &Span| place(span.start, usize::from(span.count));
    match request {
        Request::Read(span) if span.table.is_bits() => {
            return Reply::Answer(Answer::Bits(coils[all(span)].to_vec()));
        }
        Request::Read(span) => {
            return Reply::Answer(Answer::Registers(registers[all(span)].to_vec()));
        }
        Request::ReadWriteRegisters {
            read,
            address,
            words,
        } => {
            registers[place(*address, words.len())].copy_from_slice(words);
            return Reply::Answer(Answer::Registers(registers[all(read)].to_vec()));
        }
        Request::WriteCoil { address, on } => coils[usize::from(*address)] = *on,
        Request::WriteCoils { address, coils: on } => {
            coils[place(*address, on.len())].copy_from_slice(on);
        }
        Request::WriteRegister { address, word } => registers[usize::from(*address)] = *word,
        Request::WriteRegisters { address, words } => {
            registers[place(*address, words.len())].copy_from_slice(words);
        }
        Request::MaskRegister { address, and, or } => {
            let register = &mut registers[usize::from(*address)];
            *register = *register & and | or & !and;
        }
        Request::Raw(_) => return Reply::TimedOut,
    }
    Reply::Answer(Answer::Written)
}

fn function(request: &Request) -> u8 {
    match request {
        Request::Read(span) if span.table.is_bits() => 1,
        Request::Read(_) => 3,
        Request::WriteCoil { .. } => 5,
        Request::WriteRegister { .. } => 6,
        Request::WriteCoils { .. } => 15,
        Request::WriteRegisters { .. } => 16,
        Request::MaskRegister { .. } => 22,
        Request::ReadWriteRegisters { .. } => 23,
        Request::Raw(_) => 0,
    }
}

/// One register, two of them as one, some bits of one, and a coil: `p0` to `p3`.
fn written(change: impl FnOnce(&mut config::Device)) -> config::Device {
    let places = ["holding:0", "holding:2", "holding:4", "coil:0"];
    let mut device = device("a", 1, 60_000, &places);
    device.points[1].kind = Some(config::PointType::U32);
    device.points[2].bits = "4..7".parse().ok();
    device.points[3].max = None;
    change(&mut device);
    device
}

/// The function codes that go out for a value, and what becomes of it.
fn sent_for(sim: &mut Sim, point: &str, value: serde_json::Value) -> (Vec<u8>, Outcome) {
    let (sent, told) = (sim.sent.len(), sim.outcomes().len());
    sim.command(point, value);
    let end = sim.elapsed() + secs(2);
    sim.run_until(end);
    let functions = sim.sent[sent..].iter();
    let functions = functions.map(|(_, one)| function(&one.request)).collect();
    (functions, sim.outcomes()[told].clone())
}

fn started(known: &'static [u8], change: impl FnOnce(&mut config::Device)) -> Sim {
    let mut sim = Sim::new(&[written(change)], knowing(known));
    sim.run_until(secs(1));
    sim
}

fn executed(number: i128) -> Outcome {
    Outcome::Executed(Value::Integer(number))
}

#[test]
fn a_device_that_knows_one_way_to_write_is_asked_the_other_way_once() {
    let mut sim = started(&[1, 3, 15, 16], |_| {});
    let five = json!(5);
    assert_eq!(
        sent_for(&mut sim, "p0", five),
        (vec![6, 16, 3], executed(5))
    );
    assert_eq!(
        sent_for(&mut sim, "p0", json!(6)),
        (vec![16, 3], executed(6))
    );
    let on = Outcome::Executed(Value::Bool(true));
    assert_eq!(sent_for(&mut sim, "p3", json!(true)), (vec![5, 15, 1], on));
    let off = Outcome::Executed(Value::Bool(false));
    assert_eq!(sent_for(&mut sim, "p3", json!(false)), (vec![15, 1], off));
}

#[test]
fn function_codes_that_a_device_does_not_know_are_remembered_over_a_restart_until_forgotten() {
    let mut before = started(&[1, 3, 15, 16], |_| {});
    assert_eq!(sent_for(&mut before, "p0", json!(5)).0, [6, 16, 3]);
    assert_eq!(sent_for(&mut before, "p2", json!(5)).0, [22, 3, 16, 3]);
    let memories: Memories = before.schedule.memories().collect();
    assert_eq!(memories["a"].unknown_functions, [6, 22]);
    let mut after = started(&[1, 3, 15, 16], |_| {});
    after.schedule.recall(&memories, after.now.monotonic);
    assert_eq!(sent_for(&mut after, "p0", json!(6)).0, [16, 3]);
    assert_eq!(sent_for(&mut after, "p2", json!(6)).0, [3, 16, 3]);
    // What the configuration demands is done.
    let mut always = started(&[1, 3, 6], |device| {
        device.write_single = WriteSingle::Always
    });
    always.schedule.recall(&memories, always.now.monotonic);
    assert_eq!(sent_for(&mut always, "p0", json!(6)).0, [6, 3]);
    assert!(after.schedule.forget("a", after.now.monotonic));
    assert!(!after.schedule.forget("b", after.now.monotonic));
    assert!(
        after
            .schedule
            .memories()
            .all(|(_, memory)| memory.unknown_functions.is_empty())
    );
    assert_eq!(sent_for(&mut after, "p0", json!(7)).0, [6, 16, 3]);
}

#[test]
fn a_coil_is_read_back_as_the_device_lets_its_coils_be_read() {
    let mut device = device("a", 1, 60_000, &["coil:12"]);
    device.points[0].max = None;
    device.bits_from_zero = true;
    let mut on = false;
    let world = move |one: &Transaction, _| match &one.request {
        Request::Read(span) if span.start == 0 => {
            let mut bits = vec![false; usize::from(span.count)];
            bits[12] = on;
            (Duration::from_millis(20), Reply::Answer(Answer::Bits(bits)))
        }
        Request::Read(_) => refused(2),
        Request::WriteCoil { on: wanted, .. } => {
            on = *wanted;
            healthy(one)
        }
        _ => refused(1),
    };
    let mut sim = Sim::new(&[device], Box::new(world));
    sim.run_until(secs(1));
    let (sent, outcome) = sent_for(&mut sim, "p0", json!(true));
    assert_eq!(
        (sent, outcome),
        (vec![5, 1], Outcome::Executed(Value::Bool(true)))
    );
}

#[test]
fn what_no_function_writes_has_failed_after_each_was_tried_once() {
    let mut sim = started(&[1, 3], |_| {});
    let reason = "the device answered exception 01 illegal function";
    let failed = Outcome::Failed(reason.to_owned());
    assert_eq!(
        sent_for(&mut sim, "p0", json!(5)),
        (vec![6, 16], failed.clone())
    );
    assert_eq!(sent_for(&mut sim, "p1", json!(5)), (vec![16], failed));
}

#[test]
fn what_is_configured_is_not_tried_otherwise() {
    let mut never = started(&[1, 3, 5, 6, 15, 16, 22], |device| {
        device.write_single = WriteSingle::Never;
    });
    assert_eq!(sent_for(&mut never, "p0", json!(5)).0, [16, 3]);
    assert_eq!(sent_for(&mut never, "p3", json!(true)).0, [15, 1]);
    let mut always = started(&[1, 3, 15, 16], |device| {
        device.write_single = WriteSingle::Always;
    });
    assert_eq!(sent_for(&mut always, "p0", json!(5)).0, [6]);
    let (sent, outcome) = sent_for(&mut always, "p1", json!(5));
    assert_eq!(sent, [0u8; 0]);
    let Outcome::Refused(reason) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        reason.contains("one register or coil at a time"),
        "{reason}"
    );
}

#[test]
fn bits_are_written_with_their_neighbours_where_the_device_knows_no_mask() {
    let mut sim = started(&[3, 6], |_| {});
    let sent = sent_for(&mut sim, "p2", json!(10));
    assert_eq!(sent, (vec![22, 3, 6, 3], executed(10)));
    let word = Request::WriteRegister {
        address: 4,
        word: 0x00a7,
    };
    assert!(sim.sent.iter().any(|(_, one)| one.request == word));
    assert_eq!(sent_for(&mut sim, "p2", json!(11)).0, [3, 6, 3]);
    let mut configured = started(&[3, 6, 22], |device| device.mask_write = false);
    assert_eq!(sent_for(&mut configured, "p2", json!(10)).0, [3, 6, 3]);
}

#[test]
fn a_register_that_cannot_be_read_first_is_not_written() {
    let mut sim = started(&[6], |device| device.mask_write = false);
    let (sent, outcome) = sent_for(&mut sim, "p2", json!(10));
    assert_eq!(sent, [3]);
    let reason =
        "not written: reading the register's other bits gave exception 01 illegal function";
    assert_eq!(outcome, Outcome::Refused(reason.to_owned()));
}

#[test]
fn one_transaction_writes_and_reads_back_where_the_device_can() {
    let both = |device: &mut config::Device| device.read_write = true;
    let mut sim = started(&[1, 3, 23], both);
    assert_eq!(sent_for(&mut sim, "p0", json!(5)), (vec![23], executed(5)));
    assert_eq!(sent_for(&mut sim, "p1", json!(9)), (vec![23], executed(9)));
    let mut cannot = started(&[1, 3, 6, 16], both);
    assert_eq!(
        sent_for(&mut cannot, "p0", json!(5)),
        (vec![23, 6, 3], executed(5))
    );
    assert_eq!(sent_for(&mut cannot, "p1", json!(9)).0, [16, 3]);
}

#[test]
fn what_is_not_taken_at_once_is_read_again_and_not_written_again() {
    let world = |transaction: &Transaction, _| {
        let count = match &transaction.request {
            Request::Read(span) | Request::ReadWriteRegisters { read: span, .. } => span.count,
            _ => return silent(transaction),
        };
        let answer = Answer::Registers(vec![7; usize::from(count)]);
        (Duration::from_millis(20), Reply::Answer(answer))
    };
    let device = written(|device| device.read_write = true);
    let mut sim = Sim::new(&[device], Box::new(world));
    sim.run_until(secs(1));
    let (sent, outcome) = sent_for(&mut sim, "p0", json!(5));
    assert_eq!(sent, [23, 3, 3]);
    let reason = "the device acknowledged the write, but it reads back 7, not 5";
    assert_eq!(outcome, Outcome::Failed(reason.to_owned()));
}
