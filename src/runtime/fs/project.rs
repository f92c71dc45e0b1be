//! The content of configMap, secret, downwardAPI and projected volumes (BEHAVIOURS 10.6).

use std::collections::BTreeMap;

use jiff::Timestamp;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use super::File;
use super::tree::{Ino, ROOT, Tree};

impl Tree {
    /// Makes the visible content `files`, in the layout of Kubernetes' atomic writer (BEHAVIOURS
    /// 10.6). Under the volume's lock it is one step, so `..data` needs no temporary name.
    pub(super) fn project(&mut self, files: &BTreeMap<String, File>, now: Timestamp) {
        const WHY: &str = "paths of a projected volume are checked before they get here";
        let mut time = now;
        let directory = loop {
            let name = time.strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
            if !self.entries(ROOT).expect("the root is a directory").contains_key(&name) {
                break name;
            }
            time += std::time::Duration::from_nanos(1);
        };
        let mut visible = BTreeMap::new();
        visible.insert("..data".to_owned(), directory.clone());
        let data = self.sub_directory(ROOT, &directory, now).expect(WHY);
        for (path, file) in files {
            let mut parent = data;
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path.as_str()));
            for element in above.split('/').filter(|element| !element.is_empty()) {
                parent = self.sub_directory(parent, element, now).expect(WHY);
            }
            let ino = self.add_shared_file(file.content.clone(), now);
            self.attach(parent, name, ino, now).expect(WHY);
            let first = path.split('/').next().expect("splitting gives one part at least");
            visible.insert(first.to_owned(), format!("..data/{first}"));
        }
        let entries = self.entries(ROOT).expect("the root is a directory");
        let stale: Vec<String> = entries
            .iter()
            .filter(|(name, ino)| **name != directory && !self.is_link_to(**ino, visible.get(*name)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in stale {
            self.detach(ROOT, &name, now);
        }
        for (name, target) in visible {
            if !self.entries(ROOT).expect("the root is a directory").contains_key(&name) {
                let ino = self.add_link(target, now);
                self.attach(ROOT, &name, ino, now).expect(WHY);
            }
        }
    }

    /// The directory `name` in `parent`, made if it is missing. What objects hold is bounded by the API,
    /// so the bound on what guests may make does not count here.
    fn sub_directory(&mut self, parent: Ino, name: &str, now: Timestamp) -> Result<Ino, ErrorCode> {
        match self.entries(parent)?.get(name) {
            Some(ino) => Ok(*ino),
            None => {
                let ino = self.add_directory(now);
                self.attach(parent, name, ino, now)?;
                Ok(ino)
            }
        }
    }

    fn is_link_to(&self, ino: Ino, target: Option<&String>) -> bool {
        target.is_some() && self.link_target(ino) == target.map(String::as_str)
    }
}
