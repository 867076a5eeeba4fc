//! The program `ferrostem`: see `ferrostem --help`.

fn main() -> std::process::ExitCode {
    ferrostem::cli::main()
}
