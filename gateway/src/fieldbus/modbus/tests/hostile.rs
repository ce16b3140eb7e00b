//! The driver against peers that echo, babble, stutter, answer late, twice or with another number.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_serial::{SerialPort, SerialStream};

use crate::fieldbus::crc::crc;

use super::*;

/// What a peer does about one request: pauses and bytes.
type Script = Vec<(Duration, Vec<u8>)>;

/// Requests of the points used here have eight bytes on a line.
const REQUEST: usize = 8;
/// Requests that come within this time were sent without waiting for an answer.
const TOGETHER: Duration = Duration::from_millis(20);

fn at_once(bytes: Vec<u8>) -> Script {
    vec![(Duration::ZERO, bytes)]
}

fn sealed(body: &[u8]) -> Vec<u8> {
    [body, &crc(body).to_le_bytes()].concat()
}

/// Seven in the register that a request reads, or the confirmation of what it writes.
fn rtu_answer(request: &[u8]) -> Vec<u8> {
    match request[1] {
        3 => sealed(&[request[0], 3, 2, 0, 7]),
        _ => request.to_vec(),
    }
}

/// Puts a peer on a pseudo-terminal.
fn on_line(
    mut script: impl FnMut(&[u8]) -> Script + Send + 'static,
    cancel: CancellationToken,
) -> PathBuf {
    let (mut wire, far) = SerialStream::pair().expect("a pty");
    let path = far.name().expect("a name").into();
    let serve = async move {
        let mut request = [0; REQUEST];
        loop {
            if wire.read_exact(&mut request).await.is_err() {
                sleep(Duration::from_millis(5)).await;
                continue;
            }
            for (pause, bytes) in script(&request) {
                sleep(pause).await;
                let _hung_up = wire.write_all(&bytes).await;
            }
        }
    };
    tokio::spawn(async move { cancel.run_until_cancelled(serve).await });
    path
}

fn holding(name: &str, register: u16) -> Point {
    let register = format!("holding:{register}");
    point(name, &register, PointType::U16, None)
}

fn one_device(points: Vec<Point>) -> Vec<Device> {
    vec![device("plc", 1, points)]
}

fn slow_to_give_up(bus: Bus) -> Bus {
    Bus {
        response_timeout: settings::Period::from_secs(60),
        ..bus
    }
}

#[tokio::test]
async fn behind_an_adapter_that_echoes_only_what_the_device_says_counts() {
    let confirms = Arc::new(Mutex::new(false));
    let device_confirms = Arc::clone(&confirms);
    let script = move |request: &[u8]| {
        let silent = request[1] == 6 && !*device_confirms.lock().expect("no panic");
        let answer = if silent {
            Vec::new()
        } else {
            rtu_answer(request)
        };
        let echo = at_once(request.to_vec());
        [echo, vec![(Duration::from_millis(3), answer)]].concat()
    };
    let cancel = CancellationToken::new();
    let port = on_line(script, cancel.clone());
    let devices = one_device(vec![holding("setpoint", 4)]);
    let mut rig = Rig::new(bus(Some(port), None), devices, cancel);
    let read = rig.reading("setpoint").await.value;
    assert_eq!(read, Some(Value::Integer(7)));
    assert_eq!(rig.handle.status().echo, Some(true));
    // The echo of function code 6 equals its confirmation.
    let silent = rig.write("setpoint", json!(7)).await;
    assert!(matches!(silent, Outcome::Failed(_)), "{silent:?}");
    *confirms.lock().expect("no panic") = true;
    let confirmed = rig.write("setpoint", json!(7)).await;
    assert_eq!(confirmed, Outcome::Executed(Value::Integer(7)));
    rig.stop().await;
}

#[tokio::test]
async fn an_adapter_that_does_not_echo_is_recognised_and_writes_are_confirmed_once() {
    let cancel = CancellationToken::new();
    let port = on_line(|request| at_once(rtu_answer(request)), cancel.clone());
    let devices = one_device(vec![holding("setpoint", 4)]);
    let mut rig = Rig::new(bus(Some(port), None), devices, cancel);
    rig.reading("setpoint").await;
    assert_eq!(rig.handle.status().echo, Some(false));
    let confirmed = rig.write("setpoint", json!(7)).await;
    assert_eq!(confirmed, Outcome::Executed(Value::Integer(7)));
    rig.stop().await;
}

#[tokio::test]
async fn zeros_before_an_answer_and_noise_behind_it_cost_nothing() {
    let script = |request: &[u8]| at_once([&[0, 0][..], &rtu_answer(request), &[0xff]].concat());
    let cancel = CancellationToken::new();
    let port = on_line(script, cancel.clone());
    let devices = one_device(vec![holding("level", 4)]);
    let mut rig = Rig::new(bus(Some(port), None), devices, cancel);
    for _ in 0..3 {
        let read = rig.reading("level").await.value;
        assert_eq!(read, Some(Value::Integer(7)));
    }
    let status = rig.handle.status();
    assert_eq!((status.time_outs, status.garbled), (0, 0));
    assert!(status.stray_bytes >= 8, "{status:?}");
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_that_comes_in_bursts_is_one_answer() {
    let script = |request: &[u8]| {
        let pieces = rtu_answer(request);
        let piece = |bytes: &[u8]| (Duration::from_millis(16), bytes.to_vec());
        pieces.chunks(2).map(piece).collect()
    };
    let cancel = CancellationToken::new();
    let port = on_line(script, cancel.clone());
    let devices = one_device(vec![holding("level", 4)]);
    let mut rig = Rig::new(bus(Some(port), None), devices, cancel);
    for _ in 0..3 {
        let read = rig.reading("level").await.value;
        assert_eq!(read, Some(Value::Integer(7)));
    }
    assert_eq!(rig.handle.status().garbled, 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_spoilt_answer_ends_its_request_without_waiting_for_the_time_out() {
    let mut spoilt = 2;
    let script = move |request: &[u8]| {
        let mut answer = rtu_answer(request);
        if spoilt > 0 {
            spoilt -= 1;
            answer[4] ^= 0x20;
        }
        at_once(answer)
    };
    let cancel = CancellationToken::new();
    let port = on_line(script, cancel.clone());
    let devices = one_device(vec![holding("level", 4)]);
    // A time-out would outlast the test's patience.
    let bus = slow_to_give_up(bus(Some(port), None));
    let mut rig = Rig::new(bus, devices, cancel);
    let read = rig.reading("level").await.value;
    assert_eq!(read, Some(Value::Integer(7)));
    let status = rig.handle.status();
    assert_eq!(status.time_outs, 0);
    // More only where this machine itself paused within an answer.
    assert!(status.garbled >= 2, "{}", status.garbled);
    rig.stop().await;
}

/// A peer that serves connections with the same script; requests come as MBAP frames.
async fn on_network(
    script: impl Fn(usize, Vec<Vec<u8>>) -> Script + Send + Sync + 'static,
    cancel: CancellationToken,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let serve = async move {
        for connection in 1.. {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            converse(stream, connection, &script).await;
        }
    };
    tokio::spawn(async move { cancel.run_until_cancelled(serve).await });
    address
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    script: &impl Fn(usize, Vec<Vec<u8>>) -> Script,
) {
    loop {
        // Reads have twelve bytes.
        let mut request = vec![0; 12];
        if stream.read_exact(&mut request).await.is_err() {
            return;
        }
        let mut requests = vec![request.clone()];
        while let Ok(Ok(_)) = timeout(TOGETHER, stream.read_exact(&mut request)).await {
            requests.push(request.clone());
        }
        for (pause, bytes) in script(connection, requests) {
            sleep(pause).await;
            let _hung_up = stream.write_all(&bytes).await;
        }
    }
}

/// `value` in each of the registers that were asked for.
fn mbap_answer(request: &[u8], number: u16, value: u16) -> Vec<u8> {
    let count = request[11];
    let [high, low] = number.to_be_bytes();
    let words = (0..count).flat_map(|_| value.to_be_bytes());
    let head = [
        high,
        low,
        0,
        0,
        0,
        3 + 2 * count,
        request[6],
        request[7],
        2 * count,
    ];
    head.into_iter().chain(words).collect()
}

fn number(request: &[u8]) -> u16 {
    u16::from_be_bytes([request[0], request[1]])
}

#[tokio::test]
async fn an_answer_with_another_number_is_never_taken() {
    let script = |_, requests: Vec<Vec<u8>>| {
        let request = &requests[0];
        let right = number(request);
        let wrong = [right.wrapping_sub(1), right.wrapping_add(1)];
        let wrong = wrong
            .map(|number| mbap_answer(request, number, 666))
            .concat();
        at_once([wrong, mbap_answer(request, right, 7)].concat())
    };
    let cancel = CancellationToken::new();
    let address = on_network(script, cancel.clone()).await;
    let devices = one_device(vec![holding("level", 4)]);
    let mut rig = Rig::new(bus(None, Some(address)), devices, cancel);
    for _ in 0..4 {
        let read = rig.reading("level").await.value;
        assert_eq!(read, Some(Value::Integer(7)));
    }
    assert!(rig.handle.status().stray_bytes >= 8 * 11);
    rig.stop().await;
}

#[tokio::test]
async fn a_late_answer_costs_neither_the_connection_nor_the_next_answer() {
    let script = |connection, requests: Vec<Vec<u8>>| {
        let request = &requests[0];
        let value = if connection == 1 { 7 } else { 666 };
        let late = if number(request) == 1 { 260 } else { 0 };
        let answer = mbap_answer(request, number(request), value);
        vec![(Duration::from_millis(late), answer)]
    };
    let cancel = CancellationToken::new();
    let address = on_network(script, cancel.clone()).await;
    let devices = one_device(vec![holding("level", 4)]);
    let mut rig = Rig::new(bus(None, Some(address)), devices, cancel);
    rig.next_time_out().await;
    for _ in 0..3 {
        let read = rig.reading("level").await.value;
        assert_eq!(read, Some(Value::Integer(7)));
    }
    assert_eq!(rig.handle.status().time_outs, 1);
    rig.stop().await;
}

#[tokio::test]
async fn what_is_no_modbus_tcp_ends_the_connection_and_the_next_one_is_used() {
    let script = |connection, requests: Vec<Vec<u8>>| {
        let request = &requests[0];
        let mut answer = mbap_answer(request, number(request), 7);
        if connection == 1 {
            answer[3] = 1;
        }
        at_once(answer)
    };
    let cancel = CancellationToken::new();
    let address = on_network(script, cancel.clone()).await;
    let devices = one_device(vec![holding("level", 4)]);
    let bus = slow_to_give_up(bus(None, Some(address)));
    let mut rig = Rig::new(bus, devices, cancel);
    let read = rig.reading("level").await.value;
    assert_eq!(read, Some(Value::Integer(7)));
    assert_eq!(rig.handle.status().garbled, 1);
    rig.stop().await;
}

#[tokio::test]
async fn requests_under_way_at_once_get_each_its_own_answer_in_any_order() {
    let most = Arc::new(Mutex::new(0));
    let most_at_once = Arc::clone(&most);
    // The last is answered first, with the address as the value.
    let script = move |_, requests: Vec<Vec<u8>>| {
        let mut most = most_at_once.lock().expect("no panic");
        *most = requests.len().max(*most);
        let answers = requests.iter().rev().map(|request| {
            let address = u16::from_be_bytes([request[8], request[9]]);
            mbap_answer(request, number(request), address)
        });
        at_once(answers.collect::<Vec<_>>().concat())
    };
    let cancel = CancellationToken::new();
    let address = on_network(script, cancel.clone()).await;
    // Too far apart for one request.
    let devices = one_device(vec![
        holding("a", 10),
        holding("b", 1_010),
        holding("c", 2_010),
    ]);
    let bus = Bus {
        pipeline: 3,
        ..slow_to_give_up(bus(None, Some(address)))
    };
    let mut rig = Rig::new(bus, devices, cancel);
    for _ in 0..3 {
        for (name, value) in [("a", 10), ("b", 1_010), ("c", 2_010)] {
            let read = rig.reading(name).await.value;
            assert_eq!(read, Some(Value::Integer(value)), "{name}");
        }
    }
    assert_eq!(*most.lock().expect("no panic"), 3);
    rig.stop().await;
}
