//! Which of two versions is the older one, by the rules of their ecosystem. Value.
//!
//! Invariant: a total order for every text; `0` is before all.

use std::cmp::Ordering;

/// How an ecosystem orders its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// Semantic Versioning 2.0.0, as crates.io, npm and Go have it.
    Semantic,
    /// Debian Policy 5.6.12.
    Debian,
}

impl Rules {
    /// Those of an ecosystem of OSV; what follows a colon is a release of it. `None` where they are not known here.
    pub(super) fn of(ecosystem: &str) -> Option<Rules> {
        match ecosystem.split(':').next()? {
            "crates.io" | "npm" | "Go" => Some(Rules::Semantic),
            "Debian" => Some(Rules::Debian),
            _ => None,
        }
    }

    /// The order of two versions.
    pub(super) fn compare(self, one: &str, other: &str) -> Ordering {
        match (self, one, other) {
            (_, "0", "0") => Ordering::Equal,
            (_, "0", _) => Ordering::Less,
            (_, _, "0") => Ordering::Greater,
            (Rules::Semantic, ..) => semantic(one, other),
            (Rules::Debian, ..) => debian(one, other),
        }
    }
}

/// Semantic Versioning, 11.
fn semantic(one: &str, other: &str) -> Ordering {
    let parts = |version: &str| {
        let version = version.trim_start_matches('v');
        let version = version.split('+').next().unwrap_or_default();
        let (core, pre) = version.split_once('-').unwrap_or((version, ""));
        (core.to_owned(), pre.to_owned())
    };
    let ((one, one_pre), (other, other_pre)) = (parts(one), parts(other));
    let cores = identifiers(&one, &other);
    cores.then_with(|| match (one_pre.as_str(), other_pre.as_str()) {
        ("", "") => Ordering::Equal,
        // 11.3: a pre-release is before its release.
        ("", _) => Ordering::Greater,
        (_, "") => Ordering::Less,
        (one, other) => identifiers(one, other),
    })
}

/// Semantic Versioning, 11.4: numbers before words, numbers by value, fewer before more.
fn identifiers(one: &str, other: &str) -> Ordering {
    let key = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match digits {
            true => (0, digits_key(text.as_bytes()), String::new()),
            false => (1, (0, Vec::new()), text.to_owned()),
        }
    };
    one.split('.').map(key).cmp(other.split('.').map(key))
}

/// Orders digits of any length by value.
fn digits_key(digits: &[u8]) -> (usize, Vec<u8>) {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    (digits.len() - zeros, digits[zeros..].to_vec())
}

fn debian(one: &str, other: &str) -> Ordering {
    let parts = |version: &str| {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        [epoch, upstream, revision].map(str::to_owned)
    };
    let (one, other) = (parts(one), parts(other));
    let orders = one
        .iter()
        .zip(&other)
        .map(|(one, other)| debian_part(one.as_bytes(), other.as_bytes()));
    orders.fold(Ordering::Equal, Ordering::then)
}

/// By turns the longest parts without and with digits.
fn debian_part(mut one: &[u8], mut other: &[u8]) -> Ordering {
    let split = |bytes: &[u8], digits: bool| {
        bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit() == digits)
            .count()
    };
    while !one.is_empty() || !other.is_empty() {
        let (words, other_words) = (
            one.split_at(split(one, false)),
            other.split_at(split(other, false)),
        );
        let order = words_order(words.0, other_words.0);
        (one, other) = (words.1, other_words.1);
        let (number, other_number) = (
            one.split_at(split(one, true)),
            other.split_at(split(other, true)),
        );
        let order = order.then_with(|| digits_key(number.0).cmp(&digits_key(other_number.0)));
        if order != Ordering::Equal {
            return order;
        }
        (one, other) = (number.1, other_number.1);
    }
    Ordering::Equal
}

/// `~` before the end, the end before letters, letters before all else.
fn words_order(one: &[u8], other: &[u8]) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let orders =
        (0..one.len().max(other.len())).map(|at| weight(one.get(at)).cmp(&weight(other.get(at))));
    orders.fold(Ordering::Equal, Ordering::then)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascending(rules: Rules, versions: &[&str]) {
        for (at, one) in versions.iter().enumerate() {
            for (other_at, other) in versions.iter().enumerate() {
                assert_eq!(
                    rules.compare(one, other),
                    at.cmp(&other_at),
                    "{one} and {other}"
                );
            }
        }
    }

    #[test]
    fn semantic_versions_are_ordered_by_their_specification() {
        let versions = [
            "0",
            "0.0.0-0",
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
        ];
        ascending(Rules::Semantic, &versions);
        assert_eq!(
            Rules::Semantic.compare("1.0.0+a", "1.0.0+b"),
            Ordering::Equal
        );
    }

    #[test]
    fn debian_versions_are_ordered_by_its_policy() {
        let versions = [
            "0",
            "1.0~~",
            "1.0~rc1-1",
            "1.0-1~deb12u1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-2",
            "1.0-10",
            "1.0a",
            "1.0+dfsg",
            "1.1",
            "1:0.1",
        ];
        ascending(Rules::Debian, &versions);
        assert_eq!(Rules::Debian.compare("1.001", "1.1"), Ordering::Equal);
    }
}
