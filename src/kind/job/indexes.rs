//! Sets of completion indexes in their text form, `0-2,5` (BEHAVIOURS 13.8).

use std::fmt;

/// Ascending ranges, both ends included, with gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(u32, u32)>);

impl Indexes {
    /// Reads a text of ascending numbers and ranges below `completions`. The error says what is wrong
    /// with it, in Kubernetes' words.
    pub fn parse(text: &str, completions: u32) -> Result<Self, String> {
        let mut ranges = Self::default();
        if text.is_empty() {
            return Ok(ranges);
        }
        let mut last: Option<u32> = None;
        for part in text.split(',') {
            let (first, end) = match part.split('-').collect::<Vec<_>>()[..] {
                [one] => (number(one, part)?, None),
                [first, end] => (number(first, part)?, Some(number(end, part)?)),
                _ => {
                    return Err(format!(
                        "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                    ));
                }
            };
            if let Some(last) = last.filter(|last| *last >= first) {
                return Err(format!("non-increasing order, previous: {last}, current: {first}"));
            }
            let end = match end {
                None => first,
                Some(end) if end <= first => {
                    return Err(format!("non-increasing order, previous: {first}, current: {end}"));
                }
                Some(end) => end,
            };
            if end >= completions {
                return Err(format!("too large index: {:?}", end.to_string()));
            }
            ranges.push(first, end);
            last = Some(end);
        }
        Ok(ranges)
    }

    /// As [`Indexes::parse`], for what a status says: what cannot be read is not there, and what is
    /// beyond `completions` is left out (an elastic Job may have shrunk).
    #[must_use]
    pub fn read(text: &str, completions: u32) -> Self {
        let mut ranges = Self::default();
        for part in text.split(',') {
            let (first, end) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(end)) = (first.parse::<u32>(), end.parse::<u32>()) else { continue };
            if first < completions && first <= end {
                ranges.push(first, end.min(completions - 1));
            }
        }
        ranges
    }

    /// Appends a range that begins behind all others.
    fn push(&mut self, first: u32, end: u32) {
        match self.0.last_mut() {
            Some((_, last)) if first <= last.saturating_add(1) => *last = end.max(*last),
            _ => self.0.push((first, end)),
        }
    }

    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        let at = self.0.partition_point(|(_, end)| *end < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().map(|(first, end)| end - first + 1).sum()
    }

    /// These and `more`, which ascend.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = u32>) -> Self {
        let mut result = Self::default();
        let (mut mine, mut more) = (self.0.iter().copied().peekable(), more.into_iter().peekable());
        loop {
            let take_mine = match (mine.peek(), more.peek()) {
                (None, None) => return result,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((first, _)), Some(index)) => first <= index,
            };
            if take_mine {
                let (first, end) = mine.next().expect("peeked");
                result.push(first, end);
            } else {
                let index = more.next().expect("peeked");
                result.push(index, index);
            }
        }
    }

    /// How many of `wanted` are among these.
    #[must_use]
    pub fn count_of(&self, wanted: &Self) -> u32 {
        let overlap = |(first, end): &(u32, u32)| {
            let from = self.0.partition_point(|(_, last)| last < first);
            self.0[from..]
                .iter()
                .take_while(|(start, _)| start <= end)
                .map(|(start, last)| last.min(end) - start.max(first) + 1)
                .sum::<u32>()
        };
        wanted.0.iter().map(overlap).sum()
    }

    /// The first `count` indexes below `completions` that are not among these.
    #[must_use]
    pub fn first_missing(&self, count: usize, completions: u32) -> Vec<u32> {
        let mut missing = Vec::new();
        let mut next = 0;
        for (first, end) in self.0.iter().copied().chain([(completions, completions)]) {
            for index in next..first.min(completions) {
                if missing.len() == count {
                    return missing;
                }
                missing.push(index);
            }
            next = end.saturating_add(1);
        }
        missing
    }
}

/// Kubernetes writes a range of two as two numbers.
impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, end)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match end - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{end}")?,
                _ => write!(f, "{comma}{first}-{end}")?,
            }
        }
        Ok(())
    }
}

fn number(text: &str, part: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("cannot convert string to integer for index: {part:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Indexes {
        Indexes::parse(text, 100).unwrap_or_else(|why| panic!("{why}: {text}"))
    }

    #[test]
    fn texts_are_read_and_written() {
        // BEHAVIOURS 13.8.
        for (given, written) in [("", ""), ("0-2,5", "0-2,5"), ("0,1,2,4,5", "0-2,4,5"), ("7-8", "7,8")] {
            assert_eq!(set(given).to_string(), written, "{given}");
        }
        for (text, why) in [
            ("1,", "cannot convert string to integer for index: \"\""),
            ("x-2", "cannot convert string to integer for index: \"x-2\""),
            (
                "1-2-3",
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
            ("3,2", "non-increasing order, previous: 3, current: 2"),
            ("5-5", "non-increasing order, previous: 5, current: 5"),
            ("98-100", "too large index: \"100\""),
        ] {
            assert_eq!(Indexes::parse(text, 100), Err(why.to_owned()), "{text}");
        }
        assert_eq!(Indexes::read("0-2,x,5,9-12", 11).to_string(), "0-2,5,9,10");
    }

    #[test]
    fn sets_are_sets() {
        let some = set("0-2,5,9-20");
        assert_eq!(some.total(), 16);
        assert!([0, 2, 5, 9, 20].iter().all(|index| some.contains(*index)));
        assert!([3, 4, 6, 8, 21].iter().all(|index| !some.contains(*index)));
        assert_eq!(some.with([0, 3, 4, 7, 30]).to_string(), "0-5,7,9-20,30");
        assert_eq!(set("").with([1, 3]).to_string(), "1,3");
        assert_eq!(some.count_of(&set("1-9,20-40")), 2 + 1 + 1 + 1);
        assert_eq!(some.first_missing(4, 100), [3, 4, 6, 7]);
        assert_eq!(some.first_missing(9, 23), [3, 4, 6, 7, 8, 21, 22]);
        assert_eq!(set("0-9").first_missing(3, 10), [0; 0]);
        assert_eq!(set("").first_missing(2, 10), [0, 1]);
    }
}
