//! What Coracle adds to CronJobs, by annotations, which other tools may ignore.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// `coracle.dev/at: 2026-07-09T08:30:00Z`: due once, at this time, which takes the place of
/// `spec.schedule` (that must still be a valid one) and needs no time zone.
pub const AT: &str = "coracle.dev/at";
/// `coracle.dev/catch-up`: which of the times that passed without a Job are made up for.
pub const CATCH_UP: &str = "coracle.dev/catch-up";
/// `coracle.dev/run-on-create: "true"`: one that has never run is due when it was created, too.
pub const RUN_ON_CREATE: &str = "coracle.dev/run-on-create";
/// Set by the controller: the last time for which it started no Job because it was too late.
pub const LAST_MISSED: &str = "coracle.dev/last-missed";

/// Which missed times are made up for. `spec.startingDeadlineSeconds` limits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// None that is more than a few seconds past.
    None,
    /// The last one, as Kubernetes does.
    #[default]
    Last,
    /// All, in their order. With `Replace` each would end the one before, so only the last counts.
    All,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    pub at: Option<Timestamp>,
    /// `coracle.dev/at` is there but says no time: nothing is due.
    pub unreadable_at: bool,
    pub catch_up: CatchUp,
    pub run_on_create: bool,
    pub last_missed: Option<Timestamp>,
}

impl Extras {
    /// What the annotations say, and what is wrong with those that say nothing.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> (Self, Vec<String>) {
        let (mut extras, mut wrong) = (Self::default(), Vec::new());
        let get = |key: &str| meta.annotations.as_ref()?.get(key).map(String::as_str);
        if let Some(text) = get(AT) {
            extras.at = text.parse().ok();
            if extras.at.is_none() {
                extras.unreadable_at = true;
                wrong.push(format!(
                    "annotation {AT} is {text:?}, so no Job is started: it must be a time such as 2026-07-09T08:30:00Z, or be removed for spec.schedule to count"
                ));
            }
        }
        match get(CATCH_UP) {
            None | Some("last") => {}
            Some("none") => extras.catch_up = CatchUp::None,
            Some("all") => extras.catch_up = CatchUp::All,
            Some(text) => wrong.push(format!(
                "annotation {CATCH_UP} is {text:?}, which is taken for \"last\": it must be none, last or all"
            )),
        }
        match get(RUN_ON_CREATE) {
            None | Some("false") => {}
            Some("true") => extras.run_on_create = true,
            Some(text) => wrong.push(format!(
                "annotation {RUN_ON_CREATE} is {text:?}, which is taken for \"false\": it must be \"true\" or \"false\""
            )),
        }
        // Ours, so a text that somebody else wrote counts for nothing.
        extras.last_missed = get(LAST_MISSED).and_then(|text| text.parse().ok());
        (extras, wrong)
    }
}
