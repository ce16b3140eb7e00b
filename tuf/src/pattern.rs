//! Which target paths a delegation covers: wildcards and prefixes of digests (4.5).
//!
//! Invariant: a wildcard never matches `/`. Matching takes time in proportion to pattern times path at most. A value.

use ring::digest::{SHA256, digest};

use crate::hex;

/// Whether `path` is one that `pattern` describes: `*` any characters, `?` one, neither of them `/`.
pub(crate) fn matches_pattern(pattern: &str, path: &str) -> bool {
    let mut patterns = pattern.split('/');
    let mut parts = path.split('/');
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if matches_part(pattern, part) => {}
            _ => return false,
        }
    }
}

/// Whether the SHA-256 of `path`, in hexadecimal digits, begins with one of `prefixes`.
pub(crate) fn matches_prefix(prefixes: &[String], path: &str) -> bool {
    let hash = hex::encode(digest(&SHA256, path.as_bytes()).as_ref());
    prefixes.iter().any(|prefix| hash.starts_with(prefix))
}

/// Greedy, with one step back to the last `*`: no recursion, no exponential time.
fn matches_part(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_what_the_specification_says() {
        for (pattern, path, expected) in [
            ("targets/*.tgz", "targets/foo.tgz", true),
            ("targets/*.tgz", "targets/foo.txt", false),
            ("foo-version-?.tgz", "foo-version-2.tgz", true),
            ("foo-version-?.tgz", "foo-version-alpha.tgz", false),
            ("*.tgz", "foo.tgz", true),
            ("*.tgz", "targets/foo.tgz", false),
            ("foo.tgz", "foo.tgz", true),
            ("foo.tgz", "xfoo.tgz", false),
            ("*", "", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("README.md", "README.MD", false),
            ("?", "é", true),
            ("", "", true),
        ] {
            assert_eq!(
                matches_pattern(pattern, path),
                expected,
                "{pattern} and {path}"
            );
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = "a*".repeat(500) + "b";
        assert!(!matches_pattern(&pattern, &"a".repeat(5000)));
    }

    #[test]
    fn prefixes_are_those_of_the_paths_digest() {
        let prefixes = |text: &str| vec![text.to_owned()];
        let hash = hex::encode(digest(&SHA256, b"file1.txt").as_ref());
        assert!(matches_prefix(&prefixes(&hash[..2]), "file1.txt"));
        assert!(matches_prefix(&prefixes(&hash), "file1.txt"));
        assert!(!matches_prefix(&prefixes(&hash), "file2.txt"));
        assert!(!matches_prefix(&[], "file1.txt"));
    }

    proptest! {
        #[test]
        fn a_path_matches_itself_and_stars_for_its_parts(path in "[a-c/]{0,12}") {
            prop_assert!(matches_pattern(&path, &path));
            let stars: Vec<_> = path.split('/').map(|_| "*").collect();
            prop_assert!(matches_pattern(&stars.join("/"), &path));
        }
    }
}
