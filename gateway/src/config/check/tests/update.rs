//! Where releases come from and go to, and when one stays.

use super::check;

const TRUST: &str = "[tpm]\napproval_key = \"/etc/gateway/approval.pem\"\n";

fn update(keys: &str, slots: &str, rest: &str) -> String {
    format!(
        "{TRUST}[update]\nrepository = \"https://releases.example/gateway\"\ntarget = \"stable\"\nhardware = \"rpi4\"\n\
         {keys}\n[update.slots]\n{slots}\n{rest}"
    )
}

const SLOTS: &str = "a = \"/dev/a\"\nb = \"/dev/b\"\nboot = { uboot = \"/etc/fw_env.config\" }";

#[test]
fn a_repository_two_slots_and_what_the_device_is_are_enough() {
    check(&update("", SLOTS, ""), &[]);
}

#[test]
fn a_repository_that_others_can_read_or_hold_back_is_told() {
    let plain = update("", SLOTS, "").replace("https://", "http://");
    check(&plain, &["4:14: warning: it is not https"]);
    let here = plain.replace("releases.example", "127.0.0.1:8080");
    check(&here, &[]);
    let other = plain.replace("http://", "ftp://");
    check(&other, &["it must begin with https://"]);
}

#[test]
fn slots_that_are_one_place_are_refused() {
    let same = SLOTS.replace("/dev/b", "/dev/a");
    check(&update("", &same, ""), &["both slots are /dev/a"]);
    let tryboot = "a = \"/dev/a\"\nb = \"/dev/b\"\nboot = { tryboot = { file = \"/boot/autoboot.txt\", a = 2, b = 2 } }";
    check(
        &update("", tryboot, ""),
        &["both slots are started from partition 2"],
    );
    let files = "a = \"/dev/a\"\nb = \"/dev/b\"\nboot = { files = \"/tmp/boot\" }";
    check(
        &update("", files, ""),
        &["no boot loader reads a directory"],
    );
}

#[test]
fn what_the_updater_remembers_lies_out_of_the_services_reach() {
    for key in [
        "updater_directory = \"/var/lib/gateway/updater\"",
        "updater_directory = \"/var/lib/gateway/staging/updater\"",
    ] {
        check(
            &update(key, SLOTS, ""),
            &["it could change what the updater remembers"],
        );
    }
    check(
        &update("directory = \"/var/lib/gateway/staging/x\"", SLOTS, ""),
        &["which is emptied with each release"],
    );
}

#[test]
fn times_in_which_nothing_could_happen_are_refused() {
    check(
        &update(
            "install = \"window\"\nrestart = \"window\"",
            SLOTS,
            "[update.health]\nhold = \"30m\"\n",
        ),
        &[
            "it waits for a window, and there is none",
            "it waits for a window, and there is none",
            "hold 30m does not fit into deadline 30m",
        ],
    );
    check(
        &update(
            "",
            SLOTS,
            "[update.budget]\nper_day = \"2MiB\"\nper_month = \"1MiB\"\n",
        ),
        &["1MiB for a month is less than 2MiB for a day"],
    );
}

#[test]
fn what_guards_against_old_releases_is_said_where_it_is_missing() {
    let text = update("", SLOTS, "");
    check(
        &text.replace(TRUST, ""),
        &["there is no [tpm]: releases are verified in software alone"],
    );
    check(
        &text.replace(TRUST, "[tpm]\n"),
        &["[tpm] has no approval_key: its trust anchors guard nothing"],
    );
}
