//! The side of cargo-fuzz.

use std::fs;
use std::path::PathBuf;

pub use libfuzzer_sys;

/// Where a target writes its seeds to, instead of fuzzing.
const SEEDS: &str = "HOLDFAST_FUZZ_SEEDS";

/// Makes a program for libFuzzer of the module of a target.
#[macro_export]
macro_rules! target {
    ($($target:ident)::+) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds_if_asked($($target)::+::seeds),
            |input: &[u8]| $($target)::+::read(input)
        );
    };
}

/// Ends the program if it was asked for its seeds.
pub fn write_seeds_if_asked(seeds: fn() -> Vec<Vec<u8>>) {
    let Some(place) = std::env::var_os(SEEDS).map(PathBuf::from) else { return };
    for (number, seed) in seeds().into_iter().enumerate() {
        fs::write(place.join(format!("seed-{number}")), seed).expect("a place for seeds");
    }
    std::process::exit(0);
}
