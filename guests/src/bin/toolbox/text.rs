//! Tools that print: files, lines, the environment.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Failure, Io, Outcome, about};

/// Splits options that are single letters from the other words; `takes` names those with a value.
pub fn options<'a>(
    words: &'a [String],
    flags: &str,
    takes: &str,
) -> Result<(Vec<(char, &'a str)>, Vec<&'a str>), Failure> {
    let mut found = Vec::new();
    let mut rest = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.extend(words.by_ref().map(String::as_str));
        } else if word == "-" || !word.starts_with('-') {
            rest.push(word.as_str());
        } else {
            let mut letters = word[1..].char_indices();
            while let Some((place, letter)) = letters.next() {
                if flags.contains(letter) {
                    found.push((letter, ""));
                } else if takes.contains(letter) {
                    let value = &word[1 + place + letter.len_utf8()..];
                    let value = if value.is_empty() {
                        words.next().ok_or_else(|| format!("option -{letter} needs a value"))?
                    } else {
                        value
                    };
                    found.push((letter, value));
                    break;
                } else {
                    return Err(format!("unknown option {word:?}").into());
                }
            }
        }
    }
    Ok((found, rest))
}

/// Calls `each` with the content of every file, or of the input.
fn each_input(
    paths: &[&str],
    io: &mut Io,
    mut each: impl FnMut(&str, &mut dyn BufRead, &mut dyn Write) -> io::Result<()>,
) -> Outcome {
    let mut code = 0;
    if paths.is_empty() {
        each("-", io.input, io.out)?;
    }
    for path in paths {
        let done = if *path == "-" {
            each(path, io.input, io.out)
        } else {
            std::fs::File::open(path).and_then(|file| each(path, &mut BufReader::new(file), io.out))
        };
        if let Err(error) = done {
            io.out.flush().ok();
            writeln!(io.err, "{}", about(path, &error).0)?;
            code = 1;
        }
    }
    Ok(code)
}

pub fn cat(words: &[String], io: &mut Io) -> Outcome {
    let (options, paths) = options(words, "nu", "")?;
    let numbered = options.iter().any(|(letter, _)| *letter == 'n');
    let mut number = 0;
    each_input(&paths, io, |_, input, out| {
        if !numbered {
            // Passed on as it comes.
            loop {
                let bytes = input.fill_buf()?;
                let count = bytes.len();
                if count == 0 {
                    return Ok(());
                }
                out.write_all(bytes)?;
                input.consume(count);
                out.flush()?;
            }
        }
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line)? > 0 {
            number += 1;
            write!(out, "{number:6}\t")?;
            out.write_all(&line)?;
            line.clear();
        }
        Ok(())
    })
}

pub fn echo(words: &[String], io: &mut Io) -> Outcome {
    let (mut newline, mut escapes) = (true, false);
    let mut rest = words;
    while let Some((word, tail)) = rest.split_first() {
        match word.as_str() {
            "-n" => newline = false,
            "-e" => escapes = true,
            _ => break,
        }
        rest = tail;
    }
    let mut text = rest.join(" ");
    if escapes {
        text = text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
    }
    io.out.write_all(text.as_bytes())?;
    if newline {
        io.out.write_all(b"\n")?;
    }
    Ok(0)
}

pub fn env(words: &[String], io: &mut Io) -> Outcome {
    let assignments = words.iter().take_while(|word| word.contains('=')).count();
    let command = &words[assignments..];
    for word in &words[..assignments] {
        if let Some((name, value)) = word.split_once('=') {
            set_var(name, value);
        }
    }
    if command.is_empty() {
        for (name, value) in std::env::vars_os() {
            writeln!(io.out, "{}={}", name.to_string_lossy(), value.to_string_lossy())?;
        }
        return Ok(0);
    }
    crate::run(command, io).map_or_else(
        || {
            writeln!(io.err, "env: {:?}: there is no such tool", command[0])?;
            Ok(127)
        },
        Ok,
    )
}

pub fn set_var(name: &str, value: &str) {
    if !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') {
        // SAFETY: a WASI 0.1 guest has one thread.
        unsafe { std::env::set_var(name, value) };
    }
}

pub fn printenv(words: &[String], io: &mut Io) -> Outcome {
    if words.is_empty() {
        return env(words, io);
    }
    let mut code = 0;
    for name in words {
        match std::env::var_os(name) {
            Some(value) => writeln!(io.out, "{}", value.to_string_lossy())?,
            None => code = 1,
        }
    }
    Ok(code)
}

pub fn hostname(_: &[String], io: &mut Io) -> Outcome {
    writeln!(io.out, "{}", std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned()))?;
    Ok(0)
}

/// WASI has no users.
pub fn id(words: &[String], io: &mut Io) -> Outcome {
    let (options, _) = options(words, "ugn", "")?;
    let is = |asked| options.iter().any(|(letter, _)| *letter == asked);
    let text = match (is('u') || is('g'), is('n')) {
        (true, true) => "root",
        (true, false) => "0",
        (false, _) => "uid=0(root) gid=0(root) groups=0(root)",
    };
    writeln!(io.out, "{text}")?;
    Ok(0)
}

pub fn sleep(words: &[String], io: &mut Io) -> Outcome {
    let mut total = 0.0;
    for word in words {
        let (number, unit) = match word.trim_end_matches(|c: char| c.is_ascii_alphabetic()) {
            number if number.len() == word.len() => (number, 1.0),
            number => match &word[number.len()..] {
                "s" => (number, 1.0),
                "m" => (number, 60.0),
                "h" => (number, 3_600.0),
                "d" => (number, 86_400.0),
                _ if word == "infinity" => ("1e9", 1.0),
                _ => return Err(format!("invalid time {word:?}").into()),
            },
        };
        let number: f64 = number.parse().map_err(|_| format!("invalid time {word:?}"))?;
        total += number * unit;
    }
    if words.is_empty() {
        return Err("how long? give seconds".into());
    }
    let time = Duration::try_from_secs_f64(total).map_err(|_| "that is too long")?;
    io.out.flush()?;
    std::thread::sleep(time);
    Ok(0)
}

/// Year, month, day, hour, minute and second, in UTC.
pub fn civil(time: SystemTime) -> (i64, u64, u64, u64, u64, u64) {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days of a calendar whose years begin in March, so that a leap day is a year's last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = (year_of_era + era * 400 + u64::from(month <= 2)) as i64;
    (year, month, day, rest / 3_600, rest / 60 % 60, rest % 60)
}

pub fn date(words: &[String], io: &mut Io) -> Outcome {
    let now = SystemTime::now();
    let (year, month, day, hour, minute, second) = civil(now);
    let format = words.iter().find_map(|word| word.strip_prefix('+')).unwrap_or("%Y-%m-%dT%H:%M:%SZ");
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let text = format
        .replace("%F", "%Y-%m-%d")
        .replace("%T", "%H:%M:%S")
        .replace("%Y", &year.to_string())
        .replace("%m", &format!("{month:02}"))
        .replace("%d", &format!("{day:02}"))
        .replace("%H", &format!("{hour:02}"))
        .replace("%M", &format!("{minute:02}"))
        .replace("%S", &format!("{second:02}"))
        .replace("%s", &seconds.to_string());
    writeln!(io.out, "{text}")?;
    Ok(0)
}

pub fn wc(words: &[String], io: &mut Io) -> Outcome {
    let (options, paths) = options(words, "lwcm", "")?;
    let is = |asked| options.is_empty() || options.iter().any(|(letter, _)| *letter == asked);
    let show = |counts: [u64; 3], name: &str, out: &mut dyn Write| {
        let shown = [is('l'), is('w'), is('c') || is('m')];
        let mut line: Vec<String> = Vec::new();
        line.extend(counts.iter().zip(shown).filter(|(_, shown)| *shown).map(|(count, _)| count.to_string()));
        if name != "-" {
            line.push(name.to_owned());
        }
        writeln!(out, "{}", line.join(" "))
    };
    let mut total = [0; 3];
    let code = each_input(&paths, io, |path, input, out| {
        let mut counts = [0; 3];
        let mut in_word = false;
        loop {
            let bytes = input.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            for byte in bytes {
                counts[0] += u64::from(*byte == b'\n');
                counts[1] += u64::from(!in_word && !byte.is_ascii_whitespace());
                in_word = !byte.is_ascii_whitespace();
            }
            let count = bytes.len();
            counts[2] += count as u64;
            input.consume(count);
        }
        for (total, count) in total.iter_mut().zip(counts) {
            *total += count;
        }
        show(counts, path, out)
    })?;
    if paths.len() > 1 {
        show(total, "total", io.out)?;
    }
    Ok(code)
}

/// How much of a file `head` and `tail` want.
enum Part {
    Lines(usize),
    Bytes(usize),
    LinesFrom(usize),
    BytesFrom(usize),
}

fn part(words: &[String]) -> Result<(Part, Vec<&str>), Failure> {
    // `-5` is `-n 5`.
    let short = words.first().and_then(|word| word.strip_prefix('-')?.parse().ok());
    let rest = if short.is_some() { &words[1..] } else { words };
    let (options, paths) = options(rest, "q", "nc")?;
    let mut part = Part::Lines(short.unwrap_or(10));
    for (letter, value) in options.into_iter().filter(|(letter, _)| *letter != 'q') {
        let number = value.trim_start_matches(['-', '+']);
        let number = number.parse().map_err(|_| format!("invalid number {value:?}"))?;
        part = match (letter, value.starts_with('+')) {
            ('n', false) => Part::Lines(number),
            ('n', true) => Part::LinesFrom(number),
            (_, false) => Part::Bytes(number),
            (_, true) => Part::BytesFrom(number),
        };
    }
    Ok((part, paths))
}

pub fn head(words: &[String], io: &mut Io) -> Outcome {
    let (part, paths) = part(words)?;
    each_input(&paths, io, |_, input, out| match part {
        Part::Lines(count) | Part::LinesFrom(count) => {
            let mut line = Vec::new();
            for _ in 0..count {
                line.clear();
                if input.read_until(b'\n', &mut line)? == 0 {
                    break;
                }
                out.write_all(&line)?;
            }
            Ok(())
        }
        Part::Bytes(count) | Part::BytesFrom(count) => {
            io::copy(&mut input.take(count as u64), out)?;
            Ok(())
        }
    })
}

pub fn tail(words: &[String], io: &mut Io) -> Outcome {
    if words.iter().any(|word| word == "-f" || word == "-F") {
        return Err("does not follow files; kubectl logs -f follows a container's output".into());
    }
    let (part, paths) = part(words)?;
    each_input(&paths, io, |_, input, out| match part {
        Part::LinesFrom(first) => {
            let mut line = Vec::new();
            for _ in 1..first {
                line.clear();
                input.read_until(b'\n', &mut line)?;
            }
            io::copy(input, out).map(|_| ())
        }
        Part::BytesFrom(first) => {
            let skipped = (first as u64).saturating_sub(1);
            io::copy(&mut input.take(skipped), &mut io::sink())?;
            io::copy(input, out).map(|_| ())
        }
        Part::Lines(count) => {
            let mut lines = std::collections::VecDeque::new();
            let mut line = Vec::new();
            while input.read_until(b'\n', &mut line)? > 0 {
                lines.push_back(std::mem::take(&mut line));
                if lines.len() > count {
                    lines.pop_front();
                }
            }
            lines.iter().try_for_each(|line| out.write_all(line))
        }
        Part::Bytes(count) => {
            let mut bytes = Vec::new();
            input.read_to_end(&mut bytes)?;
            out.write_all(&bytes[bytes.len().saturating_sub(count)..])
        }
    })
}

/// Plain text, with `^` and `$` at the ends, and `.`, `.*` and `*` within.
pub fn grep(words: &[String], io: &mut Io) -> Outcome {
    let (options, rest) = options(words, "ivnclqFEHhsr", "e")?;
    let is = |asked| options.iter().any(|(letter, _)| *letter == asked);
    let given = options.iter().find(|(letter, _)| *letter == 'e').map(|(_, value)| *value);
    let (pattern, paths) = match (given, rest.split_first()) {
        (Some(pattern), _) => (pattern, rest),
        (None, Some((pattern, paths))) => (*pattern, paths.to_vec()),
        (None, None) => return Err("what for? give a pattern".into()),
    };
    let (fixed, fold) = (is('F'), is('i'));
    let pattern = if fold { pattern.to_lowercase() } else { pattern.to_owned() };
    let many = paths.len() > 1 && !is('h') || is('H');
    let mut any = false;
    let code = each_input(&paths, io, |path, input, out| {
        let mut line = Vec::new();
        let (mut number, mut count) = (0, 0);
        while input.read_until(b'\n', &mut line)? > 0 {
            number += 1;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches('\n');
            let seen = if fold { text.to_lowercase() } else { text.to_owned() };
            let found = if fixed { seen.contains(&pattern) } else { matches(&pattern, &seen) };
            if found != is('v') {
                any = true;
                count += 1;
                if !(is('q') || is('c') || is('l')) {
                    if many {
                        write!(out, "{path}:")?;
                    }
                    if is('n') {
                        write!(out, "{number}:")?;
                    }
                    writeln!(out, "{text}")?;
                }
            }
            line.clear();
        }
        if is('c') {
            if many {
                write!(out, "{path}:")?;
            }
            writeln!(out, "{count}")?;
        }
        if is('l') && count > 0 {
            writeln!(out, "{path}")?;
        }
        Ok(())
    })?;
    Ok(if code != 0 { 2 } else { i32::from(!any) })
}

fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    match pattern.split_first() {
        Some(('^', rest)) => here(rest, &text),
        _ => (0..=text.len()).any(|start| here(&pattern, &text[start..])),
    }
}

/// Whether the beginning of `text` is `pattern`.
fn here(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => true,
        ['$'] => text.is_empty(),
        ['\\', literal, rest @ ..] => text.first() == Some(literal) && here(rest, &text[1..]),
        [one, '*', rest @ ..] => {
            let fits = |c: &char| *one == '.' || c == one;
            let most = text.iter().take_while(|c| fits(c)).count();
            (0..=most).rev().any(|count| here(rest, &text[count..]))
        }
        [one, rest @ ..] => match text.split_first() {
            Some((c, left)) => (*one == '.' || c == one) && here(rest, left),
            None => false,
        },
    }
}
