//! What someone may have meant. Value: a function of texts.

/// How alike two keys must be for one to be taken for the other (Jaro-Winkler, 0 to 1): a slip of
/// one or two letters passes, another word does not.
const NEAR: f64 = 0.85;

/// The key or value most like the one written, if any is near enough.
pub fn nearest<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let lower = written.to_lowercase();
    known
        .map(|key| (strsim::jaro_winkler(&lower, &key.to_lowercase()), key))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}
