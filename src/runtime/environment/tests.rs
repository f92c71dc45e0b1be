use super::super::wasm::tests::{real, spec};
use super::*;

#[test]
fn the_directory_is_told_as_a_variable_unless_there_is_one() {
    let real = real();
    let mut spec = real.threads.block_on(spec(&real.runtime, "env", &["a", "b"]));
    spec.env = vec![("NAME".to_owned(), "value".to_owned())];
    let told = |spec: &ContainerSpec| {
        let told = Environment::of(spec);
        let variables: Vec<String> =
            told.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (variables.join(" "), told.directory.as_deref().cloned())
    };
    assert_eq!(told(&spec), ("NAME=value".to_owned(), None));
    spec.working_dir = Some("/work".to_owned());
    assert_eq!(told(&spec), ("NAME=value PWD=/work".to_owned(), Some("/work".to_owned())));
    spec.env = vec![("PWD".to_owned(), "/else".to_owned())];
    assert_eq!(told(&spec), ("PWD=/else".to_owned(), Some("/work".to_owned())));
}
