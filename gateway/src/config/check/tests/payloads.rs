//! What is said about rules that batch and compress.

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
