//! Random choices of a test.

/// Names the seed of a run to repeat.
const VARIABLE: &str = "DOSELINE_TEST_SEED";

/// A seed for the calling test: a new one each time, or the one in `DOSELINE_TEST_SEED`. Prints the
/// command that repeats the run, which a failing test shows.
pub fn seed() -> u64 {
    let seed = match std::env::var(VARIABLE) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{VARIABLE} is {text:?}, which is no number")),
        Err(_) => rand::random(),
    };
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(|path| path.file_stem()).and_then(|stem| stem.to_str());
    let thread = std::thread::current();
    println!("seed {seed}; again: {}", command(seed, program.unwrap_or_default(), thread.name().unwrap_or_default()));
    seed
}

/// A test program is named after its file, with a hash appended; the thread of a test is named
/// after the test.
fn command(seed: u64, program: &str, test: &str) -> String {
    let binary = program.rsplit_once('-').map_or(program, |(binary, _)| binary);
    format!("{VARIABLE}={seed} cargo test --release --workspace --test {binary} -- {test}")
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn the_command_names_seed_program_and_test() {
        let expected = "DOSELINE_TEST_SEED=5 cargo test --release --workspace --test main_path -- rows::all";
        assert_eq!(command(5, "main_path-0123abcd", "rows::all"), expected);
    }
}
