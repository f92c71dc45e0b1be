//! Fixture: fails with a message, which ends in the `unreachable` instruction.

fn main() {
    panic!("there is no way on");
}
