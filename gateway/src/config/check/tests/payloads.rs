//! What is said about rules that batch and compress, and about Sparkplug.

use super::check;

const UPSTREAM: &str = "[upstream]\nurl = \"mqtt://127.0.0.1\"\n";

fn rule(lines: &str) -> String {
    format!("{UPSTREAM}[[forward]]\nfilter = \"telemetry/#\"\n{lines}\n")
}

#[test]
fn a_batch_of_many_topics_goes_to_a_topic_of_its_own() {
    check(
        &rule("topic = \"{gateway}/batch\"\nbatch = {}\ncompress = \"zstd\""),
        &[],
    );
    check(
        &rule("batch = { messages = 10 }"),
        &["5:9: warning: each topic of \"telemetry/#\" makes batches of its own"],
    );
}

#[test]
fn a_batch_has_bounds() {
    let topic = "topic = \"{gateway}/batch\"\n";
    check(
        &rule(&format!(
            "{topic}batch = {{ messages = 1001, bytes = \"2MiB\", delay = \"1m\" }}"
        )),
        &["1000", "1MiB", "30s"],
    );
    check(&rule("compress = \"gzip\""), &["zstd"]);
}

#[test]
fn sparkplug_brings_its_own_topics_and_payloads() {
    let sparkplug = "[upstream.sparkplug]\ngroup = \"plant\"\nprimary_host = \"scada\"\n";
    let rules = "[[forward]]\nfilter = \"telemetry/#\"\n[[receive]]\nfilter = \"command/#\"\n";
    check(&format!("{UPSTREAM}{sparkplug}{rules}"), &[]);
    let rules = "[[forward]]\nfilter = \"telemetry/#\"\ntopic = \"x/{topic}\"\nbatch = {}\ncompress = \"zstd\"\n";
    check(
        &format!("{UPSTREAM}{sparkplug}{rules}"),
        &["topic", "batch", "compress"]
            .map(|_| "[upstream.sparkplug] has topics and payloads of its own"),
    );
    check(
        &format!("{UPSTREAM}[upstream.sparkplug]\ngroup = \"a/b\"\n[[forward]]\nfilter = \"a\"\n"),
        &["'/' may not stand in it"],
    );
}
