//! What has waited beside what is new, what holds it back, and what is not sent twice.

use super::*;
use crate::config::{Budget, Drain};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_arrives_while_a_backlog_waits_for_its_window() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    plant.keep(0..300).await;
    let observer = plant.observe(&broker, "gw-1/#").await;
    let link = plant.link(&broker, |config| config.drain.windows = in_six_hours());
    wait_until("the window is looked at", || {
        link.status().brake == Some(Brake::Window)
    })
    .await;
    plant.keep_one("telemetry/new", b"300".to_vec()).await;
    wait_until("the new one arrives", || {
        observer.messages.lock().unwrap().len() == 1
    })
    .await;
    plant.keep_one("telemetry/a", b"301".to_vec()).await;
    wait_until("it is acknowledged", || plant.buffer.status().rows == 301).await;
    link.stop().await;
    assert_eq!(
        observer.messages.lock().unwrap().len(),
        1,
        "the order of telemetry/a holds"
    );
    let _link = plant.link(&broker, |_| {});
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    observer.has_all(302).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_ended_in_order_sends_nothing_twice() {
    let mut plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let observer = plant.observe(&broker, "gw-1/#").await;
    plant.keep(0..3000).await;
    for round in 0..4 {
        let link = plant.link(&broker, |config| config.in_flight = 20);
        // A fast upstream may have had all of them before we look.
        wait_until("some are sent", || {
            link.status().acknowledged > 300 || plant.buffer.status().rows == 0
        })
        .await;
        link.stop().await;
        // As a reload does, and as a restart does.
        if round % 2 == 1 {
            plant.reopen_buffer().await;
        }
    }
    let _link = plant.link(&broker, |_| {});
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    observer.has_all(3000).await;
    assert_eq!(observer.messages.lock().unwrap().len(), 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_leave_the_buffer_many_at_a_time() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    plant.keep(0..3000).await;
    let commits = plant.buffer.appended();
    let before = *commits.borrow();
    let _link = plant.link(&broker, |_| {});
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    let commits = *commits.borrow() - before;
    assert!(commits <= 300, "{commits} commits for 3000 messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_link_has_cost_today_is_counted_on_after_a_restart() {
    let mut plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let budget = |config: &mut Upstream| {
        config.budget = Budget {
            per_day: Some(settings::Size::from_mib(1)),
            per_month: None,
        };
    };
    let used = |link: &LinkHandle| link.status().accounts.first().map_or(0, |day| day.used);
    let link = plant.link(&broker, budget);
    plant.keep(0..600).await;
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    link.stop().await;
    let spent = used(&link);
    assert!(spent > 600 * 200, "{spent}");
    plant.reopen_buffer().await;
    let link = plant.link(&broker, budget);
    wait_until("connected", || link.status().is_connected()).await;
    wait_until("it is counted on", || used(&link) > spent).await;

    let observer = plant.observe(&broker, "gw-1/alert/budget/upstream").await;
    for _ in 0..5 {
        plant.keep_one("telemetry/a", vec![b'0'; 200_000]).await;
    }
    wait_until("it is used up", || {
        link.status().brake == Some(Brake::Budget) || plant.buffer.status().rows == 0
    })
    .await;
    plant.keep_one("telemetry/a", b"0".to_vec()).await;
    wait_until("one waits", || link.status().brake == Some(Brake::Budget)).await;
    wait_until("the upstream is told", || {
        let seen = observer.messages.lock().unwrap();
        seen.iter()
            .any(|(_, payload, _)| payload.contains("\"day\""))
    })
    .await;
    assert!(plant.buffer.status().rows >= 1);
}

/// Fills a buffer and drains it into Mosquitto:
/// `cargo test --release -p gateway --lib -- --ignored --nocapture a_million_waiting_messages`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; prints the rate and the memory"]
async fn a_million_waiting_messages_drain_with_flat_memory() {
    const ROWS: usize = 1_000_000;
    const STEP: usize = 20_000;
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    for from in (0..ROWS).step_by(STEP) {
        plant.keep(from..from + STEP).await;
    }
    let first = resident_kib();
    let started = Instant::now();
    let link = plant.link(&broker, |config| config.drain = Drain::default());
    let mut most = first;
    for left in [ROWS / 2, 0] {
        let patience = Duration::from_secs(3600);
        while plant.buffer.status().rows > left as u64 {
            assert!(started.elapsed() < patience);
            most = most.max(resident_kib());
            sleep(Duration::from_millis(100)).await;
        }
        let took = started.elapsed().as_secs_f64();
        println!(
            "{left} left after {took:.1} s, {:.0} messages/s; resident {} KiB, at the start {first} KiB",
            (ROWS - left) as f64 / took,
            resident_kib()
        );
    }
    assert!(
        most < first + 64 * 1024,
        "{most} KiB, {first} KiB at the start"
    );
    assert_eq!(link.status().acknowledged, ROWS as u64);
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    value.unwrap().parse().unwrap()
}

fn in_six_hours() -> Vec<config::Window> {
    let minute = |hours: i64| {
        let seconds = jiff::Timestamp::now().as_second() + hours * 3600;
        let minute = seconds.rem_euclid(86_400) / 60;
        format!("{:02}:{:02}", minute / 60, minute % 60)
    };
    vec![format!("{}-{}", minute(6), minute(7)).parse().unwrap()]
}
