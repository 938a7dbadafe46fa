//! The targets on the committed corpus, and on mutations of it for a short while.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::Path;
use std::time::{Duration, Instant};

use fuzz_targets::TARGETS;

/// Bytes of the largest input that mutations make.
const INPUT_BYTES_MAX: usize = 4096;

/// `PPVMM_FUZZ_SECONDS` makes the mutating longer than in CI.
fn mutating_time() -> Duration {
    let seconds = std::env::var("PPVMM_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end
    }
}

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(8) {
        let (at, other) = (random.below(input.len() + 1), &corpus[random.below(corpus.len())]);
        match random.below(5) {
            0 if at < input.len() => input[at] = u8::try_from(random.below(256)).unwrap(),
            1 if at < input.len() => drop(input.remove(at)),
            2 => input.insert(at, u8::try_from(random.below(256)).unwrap()),
            3 => input.truncate(at),
            _ => {
                let from = random.below(other.len() + 1);
                input.splice(at..at, other[from..].iter().take(64).copied());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// Runs an input; a failing one is shown so that it can join the corpus.
fn feed(name: &str, target: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = std::panic::catch_unwind(|| target(input)) {
        eprintln!("target {name} fails on {} bytes: {input:?}", input.len());
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_corpus_passes() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for input in corpus {
            feed(name, target, &input);
        }
    }
}

#[test]
fn mutations_of_the_corpus_pass() {
    for (number, (name, target)) in TARGETS.into_iter().enumerate() {
        let (corpus, mut random) = (corpus(name), Random(0x9e37_79b9_7f4a_7c15 ^ number as u64));
        let (began, mut inputs) = (Instant::now(), 0);
        while began.elapsed() < mutating_time() {
            feed(name, target, &mutate(&mut random, &corpus));
            inputs += 1;
        }
        assert!(inputs > 20, "{name}: {inputs} inputs");
        eprintln!("{name}: {inputs} inputs");
    }
}
