use super::*;

#[test]
fn whoever_uses_up_turns_in_a_row_moves_and_whoever_waits_comes_back() {
    for (place, polls, stays) in [
        // One long poll is no computing yet.
        (Place::Waiting, &[true][..], true),
        (Place::Waiting, &[true, false, true], true),
        (Place::Waiting, &[false, true, true], false),
        (Place::Computing, &[true, true, true], true),
        (Place::Computing, &[true, false], false),
        (Place::Computing, &[false], false),
    ] {
        let mut turns = Turns::new(place);
        let last = polls.iter().map(|used_up| turns.stays(*used_up)).last();
        assert_eq!(last, Some(stays), "{place:?} {polls:?}");
    }
}
