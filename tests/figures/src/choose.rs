//! Which lines are measured, and in which order.

/// The lines that are wanted, all if none is named, in their order. A name that ends with - is the beginning of several.
///
/// # Errors
/// A name that no line has.
pub fn chosen<'a, T>(
    all: &'static [T],
    name_of: fn(&T) -> &'static str,
    wanted: &'a [String],
) -> Result<Vec<&'static T>, &'a str> {
    if let Some(name) = wanted.iter().find(|name| !all.iter().any(|line| is_meant(name_of(line), name))) {
        return Err(name);
    }
    let is_wanted = |line: &&T| wanted.is_empty() || wanted.iter().any(|name| is_meant(name_of(line), name));
    Ok(all.iter().filter(is_wanted).collect())
}

fn is_meant(line: &str, name: &str) -> bool {
    line == name || name.ends_with('-') && line.starts_with(name)
}

/// Who is measured in a round: another one begins in each.
pub fn in_turn<T: Copy>(all: &[T], round: u32) -> Vec<T> {
    let mut order = all.to_vec();
    order.rotate_left(round as usize % all.len().max(1));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_first_in_turn() {
        let firsts: Vec<_> = (0..4).map(|round| in_turn(&['a', 'b', 'c'], round)[0]).collect();
        assert_eq!(firsts, ['a', 'b', 'c', 'a']);
        assert!(in_turn::<char>(&[], 7).is_empty());
    }

    #[test]
    fn a_name_is_a_line_or_the_beginning_of_several() {
        const ALL: [&str; 3] = ["rm-1", "rm-10", "sync"];
        let choose = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            chosen(&ALL, |name| name, &wanted).map_err(str::to_owned)
        };
        assert_eq!(choose(&[]), Ok(vec![&"rm-1", &"rm-10", &"sync"]));
        assert_eq!(choose(&["sync", "rm-1"]), Ok(vec![&"rm-1", &"sync"]));
        assert_eq!(choose(&["rm-"]), Ok(vec![&"rm-1", &"rm-10"]));
        assert_eq!(choose(&["rm"]), Err("rm".to_owned()));
    }
}
