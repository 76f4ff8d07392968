//! What a test leaves to chance.

/// Names the seed of a run that is to happen again.
const VARIABLE: &str = "DOSELINE_TEST_SEED";

/// A seed for the test that calls this: another one each time, or the one that `DOSELINE_TEST_SEED` names. The command that
/// runs the same again is printed, which a failing test shows.
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

/// A program of tests is named after its file, with a hash behind; a test's thread after the test.
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
