//! What counts as an answer on a line that also brings noise, echoes and other units' frames.

use crate::fieldbus::crc::crc;

use super::*;

fn sealed(body: &[u8]) -> Vec<u8> {
    [body, &crc(body).to_le_bytes()].concat()
}

fn read() -> Vec<u8> {
    sealed(&[1, 3, 0, 0, 0, 2])
}

fn answer() -> Vec<u8> {
    sealed(&[1, 3, 4, 0, 7, 0, 8])
}

fn write() -> Vec<u8> {
    sealed(&[1, 6, 0, 4, 0, 9])
}

fn heard(request: &[u8], expected: Expected, pieces: &[&[u8]]) -> Receiver {
    let mut receiver = Receiver::new(request.to_vec(), expected);
    for piece in pieces {
        receiver.push(piece);
    }
    receiver
}

fn found(receiver: &Receiver) -> Option<Vec<u8>> {
    let range = receiver.answer(false)?;
    Some(receiver.bytes(range).to_vec())
}

const ALL: [Expected; 3] = [Expected::NoEcho, Expected::Echo, Expected::Unknown];

#[test]
fn an_answer_is_found_when_its_last_byte_has_come_and_not_before() {
    for expected in ALL {
        let mut receiver = heard(&read(), expected, &[]);
        for byte in answer() {
            assert_eq!(found(&receiver), None);
            receiver.push(&[byte]);
        }
        assert_eq!(found(&receiver), Some(answer()));
    }
}

#[test]
fn zeros_and_noise_before_an_answer_and_after_it_are_left_out() {
    for noise in [&[0][..], &[0, 0, 0], &[0xff, 0x01], &[0x01], &[1, 3]] {
        let behind = heard(&read(), Expected::Unknown, &[noise, &answer(), &[0]]);
        let settled = behind.answer(true).expect("an answer");
        assert_eq!(behind.bytes(settled.clone()), answer());
        assert_eq!(behind.strays(Some(settled)), [noise, &[0]].concat());
    }
}

#[test]
fn an_exception_is_an_answer() {
    let exception = sealed(&[1, 0x83, 2]);
    let receiver = heard(&read(), Expected::NoEcho, &[&exception]);
    assert_eq!(found(&receiver), Some(exception));
}

#[test]
fn the_echo_of_a_read_is_taken_off_wherever_it_is_not_ruled_out() {
    for expected in ALL {
        let silent = heard(&read(), expected, &[&read()]);
        assert_eq!(found(&silent), None);
        let answered = heard(&read(), expected, &[&read(), &answer()]);
        assert_eq!(found(&answered), Some(answer()));
    }
    let silent = heard(&read(), Expected::Echo, &[&read()]);
    assert_eq!(silent.why_missing(), Missing::Silence);
    assert_eq!((silent.echo(), silent.echoed()), (&read()[..], Some(true)));
}

#[test]
fn a_write_is_not_confirmed_by_its_own_echo() {
    for expected in [Expected::Echo, Expected::Unknown] {
        let silent = heard(&write(), expected, &[&write()]);
        assert_eq!(silent.answer(false), None);
        assert_eq!(silent.answer(true), None);
        let confirmed = heard(&write(), expected, &[&write(), &write()]);
        assert_eq!(found(&confirmed), Some(write()));
        assert_eq!(confirmed.echoed(), Some(true));
    }
    let echoed = heard(&write(), Expected::Echo, &[&write()]);
    assert_eq!(echoed.why_missing(), Missing::Silence);
    let perhaps = heard(&write(), Expected::Unknown, &[&write()]);
    assert_eq!(perhaps.why_missing(), Missing::PerhapsEcho);
    assert_eq!(perhaps.echoed(), None);
    let without = heard(&write(), Expected::NoEcho, &[&write()]);
    assert_eq!(found(&without), Some(write()));
}

#[test]
fn a_mangled_echo_does_not_make_the_true_echo_count() {
    let mut mangled = write();
    mangled[3] ^= 0x10;
    let receiver = heard(&write(), Expected::Echo, &[&mangled, &write()]);
    assert_eq!(receiver.answer(true), None);
}

#[test]
fn a_read_of_bits_whose_request_reads_as_its_answer_is_not_answered_by_its_echo() {
    // Seen as an answer, the address' high byte counts three bytes of data.
    let request = sealed(&[1, 1, 3, 0, 0, 20]);
    for expected in [Expected::Echo, Expected::Unknown] {
        let silent = heard(&request, expected, &[&request]);
        assert_eq!(silent.answer(true), None);
        let answered = heard(
            &request,
            expected,
            &[&request, &sealed(&[1, 1, 3, 5, 6, 7])],
        );
        assert_eq!(found(&answered), Some(sealed(&[1, 1, 3, 5, 6, 7])));
    }
}

#[test]
fn that_an_adapter_does_not_echo_is_learned_from_a_read_answered_at_once_alone() {
    let learned =
        |request: &[u8], pieces: &[&[u8]]| heard(request, Expected::Unknown, pieces).echoed();
    assert_eq!(learned(&read(), &[&answer()]), Some(false));
    assert_eq!(learned(&read(), &[&[0, 0], &answer()]), Some(false));
    assert_eq!(learned(&read(), &[&sealed(&[1, 0x83, 2])]), Some(false));
    let mut mangled = read();
    mangled[4] ^= 0xff;
    assert_eq!(learned(&read(), &[&mangled, &answer()]), None);
    assert_eq!(learned(&read(), &[]), None);
    assert_eq!(learned(&write(), &[&sealed(&[1, 0x86, 2])]), None);
}

#[test]
fn what_came_instead_is_named() {
    let missing = |bytes: &[u8]| heard(&read(), Expected::NoEcho, &[bytes]).why_missing();
    let mut wrong_crc = answer();
    wrong_crc[4] ^= 1;
    assert_eq!(missing(&[]), Missing::Silence);
    assert_eq!(missing(&[0, 0]), Missing::Silence);
    assert_eq!(missing(&wrong_crc), Missing::Mangled);
    assert_eq!(missing(&answer()[..6]), Missing::Mangled);
    assert_eq!(missing(&[&[0][..], &wrong_crc].concat()), Missing::Mangled);
    assert_eq!(missing(&sealed(&[2, 3, 2, 0, 1])), Missing::OtherUnit(2));
    assert_eq!(missing(&[0x55; 9]), Missing::Noise(9));
}

#[test]
fn another_units_frame_before_the_answer_is_left_out() {
    let other = sealed(&[2, 3, 4, 1, 1, 1, 1]);
    let receiver = heard(&read(), Expected::NoEcho, &[&other, &answer()]);
    assert_eq!(found(&receiver), Some(answer()));
}

#[test]
fn the_answer_to_an_unknown_function_ends_where_its_checksum_is_right() {
    let request = sealed(&[1, 0x41, 9]);
    let whole = sealed(&[1, 0x41, 1, 2, 3, 4, 5, 6]);
    let mut receiver = heard(&request, Expected::NoEcho, &[&whole[..7]]);
    assert_eq!(found(&receiver), None);
    receiver.push(&whole[7..]);
    assert_eq!(found(&receiver), Some(whole));
}

#[test]
fn babble_is_not_kept() {
    let mut receiver = heard(&read(), Expected::Unknown, &[]);
    for _ in 0..100 {
        receiver.push(&[0x55; 100]);
    }
    assert_eq!(receiver.received.len(), RECEIVED_MAX);
    assert_eq!(receiver.why_missing(), Missing::Noise(RECEIVED_MAX));
}
