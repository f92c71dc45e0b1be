//! `/healthz`, `/livez` and `/readyz`, in the words of apiserver's `healthz` package.

/// An answer: code and text.
#[derive(Debug, PartialEq, Eq)]
pub struct Health {
    pub code: u16,
    pub text: String,
}

/// One thing that is checked.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    pub name: &'static str,
    pub healthy: bool,
}

/// The answer of `endpoint` (`livez`): to one check, or to all but the excluded ones, which are told in
/// detail when one fails or `verbose` asks for it. `None` if there is no such check.
#[must_use]
pub fn answer(
    endpoint: &str,
    checks: &[Check],
    one: Option<&str>,
    excluded: &[&str],
    verbose: bool,
) -> Option<Health> {
    if let Some(name) = one {
        let check = checks.iter().find(|check| check.name == name)?;
        return Some(if check.healthy {
            Health { code: 200, text: "ok".to_owned() }
        } else {
            Health { code: 500, text: "internal server error: reason withheld".to_owned() }
        });
    }
    let mut text = String::new();
    for check in checks {
        text += &if excluded.contains(&check.name) {
            format!("[+]{} excluded: ok\n", check.name)
        } else if check.healthy {
            format!("[+]{} ok\n", check.name)
        } else {
            format!("[-]{} failed: reason withheld\n", check.name)
        };
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|check| check.name == **name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        text +=
            &format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(","));
    }
    Some(if checks.iter().any(|check| !check.healthy && !excluded.contains(&check.name)) {
        Health { code: 500, text: format!("{text}{endpoint} check failed") }
    } else if verbose {
        Health { code: 200, text: format!("{text}{endpoint} check passed\n") }
    } else {
        Health { code: 200, text: "ok".to_owned() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_come_when_asked_for_or_when_something_fails() {
        let checks = [Check { name: "ping", healthy: true }, Check { name: "shutdown", healthy: false }];
        let well = [checks[0]];
        for (checks, one, excluded, verbose, expected) in [
            (&well[..], None, vec![], false, Some((200, "ok"))),
            (&well[..], None, vec![], true, Some((200, "[+]ping ok\nreadyz check passed\n"))),
            (
                &checks[..],
                None,
                vec![],
                false,
                Some((500, "[+]ping ok\n[-]shutdown failed: reason withheld\nreadyz check failed")),
            ),
            (&checks[..], None, vec!["shutdown"], false, Some((200, "ok"))),
            (&checks[..], Some("ping"), vec![], false, Some((200, "ok"))),
            (
                &checks[..],
                Some("shutdown"),
                vec![],
                false,
                Some((500, "internal server error: reason withheld")),
            ),
            (&checks[..], Some("teapot"), vec![], false, None),
        ] {
            let found = answer("readyz", checks, one, &excluded, verbose);
            assert_eq!(found, expected.map(|(code, text)| Health { code, text: text.to_owned() }));
        }
    }
}
