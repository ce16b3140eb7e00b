//! Whatever the link does: links, losses and answers by chance, from seeds that a failure prints.

use std::collections::BTreeMap;

use super::{super::Input, sim::Sim};
use crate::{config::Priority, upstream::intake};

#[test]
fn nothing_is_lost_and_order_holds_whatever_the_link_does() {
    for seed in 1..500 {
        let share = [1, 50, 100][seed as usize % 3];
        let mut sim = Sim::sharing(seed, 1 + (seed % 7) as u16, share);
        sim.slow_reads = seed % 2 == 0;
        let mut appended = BTreeMap::<&str, u64>::new();
        for _ in 0..300 {
            match sim.random(13) {
                0 => sim.link_down(),
                1 | 2 => sim.link_up(),
                3..=5 => {
                    let index = sim.random(4) as usize;
                    let topic = ["a", "b", "c", "overtakes/d"][index];
                    let priority = [Priority::Normal, Priority::High, Priority::Low][index % 3];
                    let count = 1 + sim.random(3);
                    sim.append_ranked(topic, count, priority);
                    sim.input(Input::Appended);
                    *appended.entry(topic).or_default() = sim.numbers[topic];
                }
                6 => sim.pass(intake::FALLEN_BEHIND),
                7 | 8 => drop(sim.finish_reading()),
                _ => sim.acknowledge_some(),
            }
        }
        sim.link_down();
        sim.link_up();
        while sim.finish_reading() || !sim.on_wire.is_empty() {
            sim.acknowledge_all();
        }
        assert!(
            sim.stored.is_empty(),
            "seed {seed}: {} left",
            sim.stored.len()
        );
        for (topic, last) in appended {
            let mut first_arrivals = Vec::new();
            for number in &sim.arrived[topic] {
                if !first_arrivals.contains(number) {
                    first_arrivals.push(*number);
                }
            }
            if topic.starts_with("overtakes") {
                first_arrivals.sort_unstable();
            }
            let expected: Vec<_> = (1..=last).collect();
            assert_eq!(first_arrivals, expected, "seed {seed}, topic {topic}");
        }
    }
}
