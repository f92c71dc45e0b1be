//! Which cluster a command speaks to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{DataDir, Failure};
use crate::client::remote::Access;

/// A running cluster, and where in it.
#[derive(clap::Args)]
pub(super) struct Cluster {
    /// The namespace [default: that of the kubeconfig's context, else `default`]
    #[arg(short, long, value_name = "NS")]
    pub(super) namespace: Option<String>,
    /// How to reach the cluster [default: $KUBECONFIG, then the kubeconfig in the data directory, then
    /// ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context to use instead of its current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Cluster {
    pub(super) fn access(&self) -> Result<Access, Failure> {
        // A machine without such directories still has the other ways.
        let in_data_dir = self.data_dir.path().ok().map(|directory| directory.join("kubeconfig"));
        let home = std::env::home_dir().map(|home| home.join(".kube/config"));
        let places = Places {
            flag: self.kubeconfig.clone(),
            named_data_dir: in_data_dir.clone().filter(|_| self.data_dir.is_named()),
            variable: std::env::var_os("KUBECONFIG"),
            data_dir: in_data_dir,
            home,
        };
        let kubeconfigs = places.choose(&|path| path.is_file())?;
        Ok(Access { kubeconfigs, context: self.context.clone() })
    }
}

/// Where a kubeconfig may be, the first that applies first.
struct Places {
    flag: Option<PathBuf>,
    /// In the directory that `--data-dir` names.
    named_data_dir: Option<PathBuf>,
    /// The value of `KUBECONFIG`: files that are taken together, of which those that are missing are not.
    variable: Option<OsString>,
    data_dir: Option<PathBuf>,
    home: Option<PathBuf>,
}

impl Places {
    fn choose(&self, exists: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>, String> {
        if let Some(path) = self.flag.as_ref().or(self.named_data_dir.as_ref()) {
            return Ok(vec![path.clone()]);
        }
        if let Some(variable) = self.variable.as_ref().filter(|variable| !variable.is_empty()) {
            let listed = std::env::split_paths(variable).filter(|path| !path.as_os_str().is_empty());
            let found: Vec<_> = listed.filter(|path| exists(path)).collect();
            if found.is_empty() {
                return Err(format!(
                    "cannot find the kubeconfig that KUBECONFIG names ({}); start a cluster with \
                     `coracle up`, or name another file with --kubeconfig",
                    variable.display()
                ));
            }
            return Ok(found);
        }
        let places: Vec<&PathBuf> = self.data_dir.iter().chain(&self.home).collect();
        match places.iter().find(|path| exists(path)) {
            Some(path) => Ok(vec![(*path).clone()]),
            None => {
                let looked: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
                Err(format!(
                    "cannot find a kubeconfig (looked at {}); start a cluster with `coracle up`, \
                     or name a file with --kubeconfig",
                    looked.join(", ")
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is chosen when only `existing` are there.
    #[track_caller]
    fn check(places: &Places, existing: &[&str], expected: Result<&[&str], &str>) {
        let exists = |path: &Path| existing.iter().any(|one| Path::new(one) == path);
        match (places.choose(&exists), expected) {
            (Ok(chosen), Ok(expected)) => {
                assert_eq!(chosen, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
            }
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (chosen, expected) => panic!("{chosen:?} instead of {expected:?}"),
        }
    }

    fn places() -> Places {
        Places {
            flag: Some("flag".into()),
            named_data_dir: Some("named/kubeconfig".into()),
            variable: Some("one:two::three".into()),
            data_dir: Some("data/kubeconfig".into()),
            home: Some("home".into()),
        }
    }

    #[test]
    fn the_nearest_kubeconfig_is_chosen() {
        // What was named is taken even if it is missing, so that the error names it.
        check(&places(), &[], Ok(&["flag"]));
        let places = Places { flag: None, ..places() };
        check(&places, &[], Ok(&["named/kubeconfig"]));
        let places = Places { named_data_dir: None, ..places };
        check(&places, &["three", "one", "data/kubeconfig"], Ok(&["one", "three"]));
        check(&places, &["data/kubeconfig"], Err("that KUBECONFIG names (one:two::three)"));
        let places = Places { variable: Some("".into()), ..places };
        check(&places, &["data/kubeconfig", "home"], Ok(&["data/kubeconfig"]));
        check(&places, &["home"], Ok(&["home"]));
        check(&places, &[], Err("(looked at data/kubeconfig, home)"));
        let places = Places { variable: None, data_dir: None, ..places };
        check(&places, &["home"], Ok(&["home"]));
    }
}
