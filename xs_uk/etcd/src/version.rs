//! Versions of etcd with faults that matter to a replicated log.
//!
//! Before 3.4.42, 3.5.28 and 3.6.9 a member that was paused may answer a linearizable read from its stale state
//! (etcd issue 20418). The engine does not rely on such reads for safety (see `core`), but operators should know.

/// The first repaired version of a line, if `version` comes before it; "" for a line that gets no repairs.
pub fn repaired_in(version: &str) -> Option<&'static str> {
    let mut numbers = version.split(['.', '-', '+']).map(|number| number.parse::<u32>().ok());
    let mut number = || numbers.next().flatten();
    let (major, minor, patch) = (number()?, number()?, number()?);
    match (major, minor) {
        (3, 4) => (patch < 42).then_some("3.4.42"),
        (3, 5) => (patch < 28).then_some("3.5.28"),
        (3, 6) => (patch < 9).then_some("3.6.9"),
        (0..=2, _) | (3, 0..=3) => Some(""),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_first_good_version() {
        for (version, repaired) in [
            ("3.4.23", Some("3.4.42")),
            ("3.4.42", None),
            ("3.5.27", Some("3.5.28")),
            ("3.5.28", None),
            ("3.6.8-rc.1", Some("3.6.9")),
            ("3.6.9", None),
            ("3.7.0", None),
            ("3.3.27", Some("")),
            ("4.0.0", None),
            ("unknown", None),
        ] {
            assert_eq!(repaired_in(version), repaired, "{version}");
        }
    }
}
