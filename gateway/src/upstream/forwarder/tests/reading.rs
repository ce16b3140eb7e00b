//! How the buffer is read: once, page by page, and again what could not be read.

use super::{
    super::{Answer, Input},
    sim::Sim,
};

#[test]
fn a_backlog_of_any_length_is_read_once_and_page_by_page() {
    const ROWS: u64 = 100_000;
    let mut sim = Sim::new(1, 100);
    for number in 0..ROWS {
        sim.append(["a", "b", "c"][number as usize % 3], 1);
    }
    sim.link_up();
    let mut most = 0;
    let mut underfilled = 0;
    while !sim.stored.is_empty() {
        let message = sim.on_wire.remove(0);
        sim.input(Input::Answered(message.key, Answer::Acknowledged));
        most = most.max(sim.forwarder.lanes.total() + sim.forwarder.flights.len());
        underfilled += usize::from(sim.on_wire.len() < sim.stored.len().min(100));
    }
    assert!(most <= 1000, "{most} messages in memory");
    assert_eq!(underfilled, 0, "the window is kept full");
    assert_eq!(sim.rows_read as u64, ROWS);
    assert_eq!(sim.surveys, 1);
}

#[test]
fn what_was_sent_while_a_reading_was_under_way_is_not_sent_again() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 2);
    sim.link_up();
    sim.link_down();
    sim.append("a", 1);
    sim.slow_reads = true;
    sim.link_up();
    sim.acknowledge(1);
    sim.acknowledge(2);
    while sim.finish_reading() {}
    assert_eq!(sim.arrived["a"], [1, 2, 1, 2, 3]);
}

#[test]
fn what_cannot_be_read_is_asked_for_again() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 3);
    sim.slow_reads = true;
    sim.link_up();
    for _ in 0..3 {
        sim.pending = None;
        sim.input(Input::Unread);
        assert!(sim.pending.is_none());
        let due = sim.forwarder.poll_timeout().unwrap();
        sim.wait(due - sim.now.monotonic);
    }
    while sim.finish_reading() {}
    assert_eq!(sim.arrived["a"], [1, 2, 3]);
}
