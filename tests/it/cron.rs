//! CronJobs over days in virtual time, over stops and crashes.
//!
//! Jobs here are managed by the test, which ends them when it wants; so what is seen is when they are
//! started.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use coracle::apiserver::authn::User;
use coracle::apiserver::request::{LogOptions, LogStream};
use coracle::apiserver::token::SigningKey;
use coracle::apiserver::{Api, Error, NodeAccess, Parts};
use coracle::client::{Client, Event, Recorder, Select};
use coracle::clock::{self, Clock};
use coracle::controller::fault::Fault;
use coracle::controller::{self, Controllers, bootstrap};
use coracle::kind::address_plan::AddressPlan;
use coracle::random::Random;
use coracle::store::Store;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Event as CoreEvent, Pod};
use serde_json::{Value, json};

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
const MANAGER: &str = "example.com/test";
/// On a Job: after how many seconds the test ends it.
const SECONDS: &str = "example.com/seconds";

struct NoNodes;

#[async_trait]
impl NodeAccess for NoNodes {
    async fn logs(&self, _pod: &Pod, _container: &str, _options: &LogOptions) -> Result<LogStream, Error> {
        unreachable!("no test here reads logs")
    }
}

/// An API in memory, whose controllers come and go.
struct Plane {
    admin: Client,
    manager: Client,
    clock: Clock,
    config: controller::Config,
}

impl Plane {
    async fn new(start: &str) -> Self {
        let clock = Clock::starting_at(time(start));
        let tokens = Arc::new(SigningKey::generate().unwrap());
        let api = Api::new(Parts {
            store: Store::ephemeral(clock),
            clock,
            random: Random::from_seed(7),
            nodes: Arc::new(NoNodes),
            tokens: Arc::clone(&tokens),
            plan: AddressPlan::default(),
        });
        let manager = Client::new(api.clone(), User::component("kube-controller-manager"));
        let config = controller::Config {
            ca_pem: "the authority".into(),
            api_address: SocketAddr::from(([127, 0, 0, 1], 6443)),
            plan: AddressPlan::default(),
            dns: None,
            tokens,
            time_zone: TimeZone::UTC,
            fault: None,
        };
        bootstrap(&manager, &config).await.unwrap();
        Self { admin: Client::new(api, User::admin()), manager, clock, config }
    }

    fn controllers(&self, fault: Option<Fault>) -> controller::Handle {
        let recorder = Recorder::start(self.manager.clone(), self.clock, "controllermanager", None);
        let config = controller::Config { fault, ..self.config.clone() };
        Controllers::start(self.manager.clone(), recorder, self.clock, &config)
    }

    async fn create(&self, name: &str, spec: Value, annotations: Value, seconds: i64) -> Arc<CronJob> {
        self.admin.create(cron_job(name, &spec, annotations, seconds)).await.unwrap()
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron_job(name: &str, spec: &Value, annotations: Value, seconds: i64) -> CronJob {
    let mut value = json!({
        "metadata": { "name": name, "namespace": "default", "annotations": annotations },
        "spec": { "jobTemplate": {
            "metadata": { "annotations": { SECONDS: seconds.to_string() } },
            "spec": {
                "managedBy": MANAGER,
                "template": { "spec": {
                    "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }],
                } },
            },
        } },
    });
    json_patch::merge(&mut value["spec"], spec);
    serde_json::from_value(value).unwrap()
}

/// CronJob, the time a Job was started for, the second at which it was seen.
type Run = (String, Timestamp, Timestamp);

fn run_of(job: &Job, now: Timestamp) -> Run {
    let meta = &job.metadata;
    let owner = meta.owner_references.as_ref().unwrap()[0].name.clone();
    (owner, time(&meta.annotations.as_ref().unwrap()[SCHEDULED]), whole(now))
}

fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap()
}

/// Plays the kubelet's part: notes every Job once and ends it when its annotation says, if it is still
/// there then.
fn work(client: &Client, clock: Clock) -> Arc<Mutex<Vec<Run>>> {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let mut watcher = client.watch::<Job>(Select::default());
    let (client, noted) = (client.clone(), runs.clone());
    tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        while let Some(batch) = watcher.next_batch().await {
            for event in batch {
                let jobs = match event {
                    Event::Restarted(jobs) => jobs,
                    Event::Applied(job) => vec![job],
                    Event::Deleted(_) => Vec::new(),
                };
                for job in jobs {
                    if seen.insert(job.metadata.uid.clone()) {
                        let started = clock.now();
                        noted.lock().unwrap().push(run_of(&job, started));
                        tokio::spawn(end(client.clone(), clock, job, started));
                    }
                }
            }
        }
    });
    runs
}

async fn end(client: Client, clock: Clock, job: Arc<Job>, started: Timestamp) {
    let seconds: i64 = job.metadata.annotations.as_ref().unwrap()[SECONDS].parse().unwrap();
    clock.sleep_until(whole(started) + SignedDuration::from_secs(seconds)).await;
    let mut ended = (*job).clone();
    ended.metadata.resource_version = None;
    let now = whole(clock.now()).to_string();
    let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now });
    ended.status = serde_json::from_value(json!({
        "startTime": whole(started).to_string(), "completionTime": now, "succeeded": 1,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    }))
    .unwrap();
    match client.update_status(ended).await {
        Ok(_) => {}
        // Replaced meanwhile, or the cluster is gone.
        Err(error) => assert!(error.is_not_found(), "{error}"),
    }
}

struct Schedule {
    text: &'static str,
    /// What the text means, written by hand.
    is_due: fn(DateTime) -> bool,
}

fn is_weekend(day: Weekday) -> bool {
    matches!(day, Weekday::Saturday | Weekday::Sunday)
}

const SCHEDULES: [Schedule; 10] = [
    Schedule { text: "0 * * * *", is_due: |t| t.minute() == 0 },
    Schedule { text: "30 */2 * * *", is_due: |t| t.minute() == 30 && t.hour() % 2 == 0 },
    Schedule { text: "15,45 1,2,3 * * *", is_due: |t| t.minute() % 30 == 15 && (1..=3).contains(&t.hour()) },
    Schedule { text: "30 2 * * *", is_due: |t| t.hour() == 2 && t.minute() == 30 },
    Schedule {
        text: "0 0 * * SUN",
        is_due: |t| t.hour() == 0 && t.minute() == 0 && t.weekday() == Weekday::Sunday,
    },
    Schedule {
        text: "*/40 8-10 * * mon-fri",
        is_due: |t| t.minute() % 40 == 0 && (8..=10).contains(&t.hour()) && !is_weekend(t.weekday()),
    },
    Schedule {
        text: "0 12 7 3 1",
        is_due: |t| {
            t.hour() == 12
                && t.minute() == 0
                && t.month() == 3
                && (t.day() == 7 || t.weekday() == Weekday::Monday)
        },
    },
    Schedule {
        text: "20 3-23/5 */3 * *",
        is_due: |t| t.minute() == 20 && t.hour() >= 3 && (t.hour() - 3) % 5 == 0 && (t.day() - 1) % 3 == 0,
    },
    Schedule { text: "@daily", is_due: |t| t.hour() == 0 && t.minute() == 0 },
    Schedule { text: "59 23 * Feb,mar *", is_due: |t| t.hour() == 23 && t.minute() == 59 },
];

const ZONES: [Option<&str>; 4] =
    [Some("America/New_York"), None, Some("America/Havana"), Some("Australia/Lord_Howe")];
const POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];
/// None is a multiple of a minute, so that no Job ends as another is due.
const DURATIONS: [i64; 4] = [607, 2_411, 5_003, 26_417];

/// What Kubernetes' rules make of the due times, by walking along them.
fn expected(name: &str, policy: &str, seconds: i64, dues: &[Timestamp], until: Timestamp) -> Vec<Run> {
    let mut runs = Vec::new();
    let run = |runs: &mut Vec<Run>, scheduled, started| runs.push((name.to_owned(), scheduled, started));
    if policy != "Forbid" {
        dues.iter().for_each(|due| run(&mut runs, *due, *due));
        return runs;
    }
    let length = SignedDuration::from_secs(seconds);
    let mut busy_until = Timestamp::MIN;
    let mut skipped = None;
    // One beyond the end lets go what is still held back then.
    for due in dues.iter().copied().chain([until + SignedDuration::from_secs(1)]) {
        if busy_until < due
            && let Some(held) = skipped.take()
        {
            run(&mut runs, held, busy_until);
            busy_until += length;
        }
        if due > until {
            break;
        }
        if due < busy_until {
            skipped = Some(due);
        } else {
            run(&mut runs, due, due);
            busy_until = due + length;
        }
    }
    runs.retain(|(_, _, started)| *started <= until);
    runs
}

/// A hundred CronJobs of all policies, lengths and zones, over New York's and Havana's change to summer
/// time on 8 March 2026: every run at its second, and no other.
#[test]
fn a_week_of_a_hundred_cron_jobs_runs_as_a_walk_along_the_minutes_says() {
    let (start, until) = (time("2026-03-05T00:00:00Z"), time("2026-03-12T00:00:00Z"));
    let mut wanted = Vec::new();
    let runs = clock::virtual_runtime().unwrap().block_on(async {
        let plane = Plane::new(&start.to_string()).await;
        let controllers = plane.controllers(None);
        let runs = work(&plane.admin, plane.clock);
        for i in 0..100 {
            let schedule = &SCHEDULES[i % 10];
            let (zone, policy, seconds) = (ZONES[i / 10 % 4], POLICIES[i % 3], DURATIONS[i / 7 % 4]);
            let mut spec = json!({ "schedule": schedule.text, "concurrencyPolicy": policy });
            if let Some(zone) = zone {
                spec["timeZone"] = json!(zone);
            }
            let name = format!("cron-{i}");
            let created = plane.create(&name, spec, json!({}), seconds).await;
            let since = created.metadata.creation_timestamp.as_ref().unwrap().0;
            let zone = TimeZone::get(zone.unwrap_or("UTC")).unwrap();
            let minutes = (0..).map(|n| start + SignedDuration::from_mins(n));
            let dues: Vec<Timestamp> = minutes
                .take_while(|minute| *minute <= until)
                .filter(|minute| *minute > since && (schedule.is_due)(zone.to_datetime(*minute)))
                .collect();
            wanted.extend(expected(&name, policy, seconds, &dues, until));
        }
        plane.clock.sleep_until(until + SignedDuration::from_millis(500)).await;
        controllers.shutdown().await;
        runs.lock().unwrap().clone()
    });
    assert!(wanted.len() > 2_000, "a week has {} runs", wanted.len());
    let (runs, wanted): (BTreeSet<Run>, BTreeSet<Run>) =
        (runs.into_iter().collect(), wanted.into_iter().collect());
    let missing: Vec<_> = wanted.difference(&runs).take(10).collect();
    let extra: Vec<_> = runs.difference(&wanted).take(10).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nextra: {extra:#?}");
}

/// The policies are told apart by what is left of the Jobs, too: none runs beside another unless allowed.
#[test]
fn replaced_jobs_are_gone_and_allowed_ones_run_together() {
    clock::virtual_runtime().unwrap().block_on(async {
        let plane = Plane::new("2026-03-05T00:00:30Z").await;
        let controllers = plane.controllers(None);
        for policy in POLICIES {
            let spec = json!({ "schedule": "*/10 * * * *", "concurrencyPolicy": policy });
            plane.create(&policy.to_lowercase(), spec, json!({}), 0).await;
        }
        // No Job ends.
        plane.clock.sleep_until(time("2026-03-05T00:35:00Z")).await;
        let jobs = plane.admin.list::<Job>(&Select::default()).await.unwrap().items;
        let mut left: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
        let runs: Vec<Run> = jobs.iter().map(|job| run_of(job, Timestamp::UNIX_EPOCH)).collect();
        for (owner, scheduled, _) in &runs {
            left.entry(owner).or_default().push(*scheduled);
        }
        let [first, second, third] =
            ["2026-03-05T00:10:00Z", "2026-03-05T00:20:00Z", "2026-03-05T00:30:00Z"].map(time);
        let wanted = BTreeMap::from([
            ("allow", vec![first, second, third]),
            ("forbid", vec![first]),
            ("replace", vec![third]),
        ]);
        assert_eq!(left, wanted);
        for (policy, active) in [("allow", 3), ("forbid", 1), ("replace", 1)] {
            let status = plane.admin.get::<CronJob>("default", policy).await.unwrap().status.clone().unwrap();
            assert_eq!(status.active.unwrap().len(), active, "{policy}");
        }
        controllers.shutdown().await;
    });
}

/// Runs the controllers until `until`: the Jobs that were created meanwhile, and all times that are told to
/// be missed.
async fn over(plane: &Plane, until: &str) -> (Vec<Run>, Vec<String>) {
    let start = whole(plane.clock.now());
    let controllers = plane.controllers(None);
    plane.clock.sleep_until(time(until)).await;
    controllers.shutdown().await;
    let jobs = plane.admin.list::<Job>(&Select::default()).await.unwrap().items;
    let mut runs: Vec<Run> = jobs
        .iter()
        .map(|job| run_of(job, job.metadata.creation_timestamp.as_ref().unwrap().0))
        .filter(|(_, _, started)| *started >= start)
        .collect();
    runs.sort();
    let events = plane.admin.list::<CoreEvent>(&Select::default()).await.unwrap().items;
    let missed = events.iter().filter(|event| event.reason.as_deref() == Some("MissSchedule"));
    let mut missed: Vec<String> = missed
        .map(|event| {
            let name = event.involved_object.name.as_deref().unwrap();
            format!("{name}: {}", event.message.as_deref().unwrap())
        })
        .collect();
    missed.sort();
    (runs, missed)
}

/// BEHAVIOURS 14.4, and what annotations add.
#[test]
fn after_a_night_off_each_catches_up_as_it_was_told() {
    clock::virtual_runtime().unwrap().block_on(a_night_off());
}

async fn a_night_off() {
    let plane = Plane::new("2026-05-01T20:30:00Z").await;
    let hourly = |name: &str, annotations: Value, more: Value| {
        let mut spec = json!({ "schedule": "0 * * * *" });
        json_patch::merge(&mut spec, &more);
        cron_job(name, &spec, annotations, 0)
    };
    let all = [
        hourly("last", json!({}), json!({})),
        hourly("all", json!({ "coracle.dev/catch-up": "all" }), json!({})),
        hourly("none", json!({ "coracle.dev/catch-up": "none" }), json!({})),
        hourly("deadline", json!({}), json!({ "startingDeadlineSeconds": 600 })),
        hourly("once", json!({ "coracle.dev/at": "2026-05-02T03:33:00Z" }), json!({})),
        hourly("forbid", json!({}), json!({ "concurrencyPolicy": "Forbid" })),
    ];
    for cron_job in all {
        plane.admin.create(cron_job).await.unwrap();
    }
    let (evening, _) = over(&plane, "2026-05-01T22:10:00Z").await;
    let started = |runs: &[Run], name: &str| -> Vec<String> {
        let of = runs.iter().filter(|(owner, ..)| owner == name);
        of.map(|(_, scheduled, started)| {
            format!("{} at {}", scheduled.strftime("%H:%M"), started.strftime("%H:%M"))
        })
        .collect()
    };
    for name in ["last", "all", "none", "deadline"] {
        assert_eq!(started(&evening, name), ["21:00 at 21:00", "22:00 at 22:00"], "{name}");
    }
    assert_eq!(started(&evening, "once"), [""; 0]);
    assert_eq!(started(&evening, "forbid"), ["21:00 at 21:00"]);

    plane.clock.sleep_until(time("2026-05-02T06:30:00Z")).await;
    let (morning, missed) = over(&plane, "2026-05-02T07:10:00Z").await;
    assert_eq!(started(&morning, "last"), ["06:00 at 06:30", "07:00 at 07:00"]);
    let all = ["23:00", "00:00", "01:00", "02:00", "03:00", "04:00", "05:00", "06:00"];
    let mut all: Vec<String> = all.iter().map(|hour| format!("{hour} at 06:30")).collect();
    all.push("07:00 at 07:00".to_owned());
    assert_eq!(started(&morning, "all"), all);
    for name in ["none", "deadline"] {
        assert_eq!(started(&morning, name), ["07:00 at 07:00"], "{name}");
    }
    assert_eq!(started(&morning, "once"), ["03:33 at 06:30"]);
    // The Job of the evening still runs.
    assert_eq!(started(&morning, "forbid"), [""; 0]);
    let text = "Missed scheduled time to start a job: Sat, 02 May 2026 06:00:00 +0000";
    assert_eq!(missed, [format!("deadline: {text}"), format!("none: {text}")]);
}

/// Kills the controllers before each of their writes in turn, and starts them again: the same Jobs, one
/// for each time, and the same status.
#[test]
fn a_crash_between_any_two_writes_makes_no_twin() {
    let scenario = |before: Option<usize>| {
        clock::virtual_runtime().unwrap().block_on(async {
            let plane = Plane::new("2026-03-05T00:00:30Z").await;
            let fault = Fault::before(before.unwrap_or_default(), &["cron_job"]);
            let first = plane.controllers(Some(fault.clone()));
            let runs = work(&plane.admin, plane.clock);
            for policy in POLICIES {
                let spec = json!({
                    "schedule": "*/2 * * * *", "concurrencyPolicy": policy, "successfulJobsHistoryLimit": 2,
                });
                plane.create(&policy.to_lowercase(), spec, json!({}), 187).await;
            }
            let until = time("2026-03-05T00:20:59Z");
            let second = match before {
                None => None,
                Some(_) => {
                    let left = plane.clock.timeout(Duration::from_secs(3600), fault.killed()).await;
                    assert!(left.is_ok(), "there is a write number {before:?}");
                    Some(plane.controllers(None))
                }
            };
            plane.clock.sleep_until(until).await;
            let mut statuses = Vec::new();
            for cron_job in plane.admin.list::<CronJob>(&Select::default()).await.unwrap().items {
                let status = cron_job.status.clone().unwrap();
                let active = status
                    .active
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|one| one.name)
                    .collect::<Vec<_>>();
                statuses.push((
                    cron_job.metadata.name.clone(),
                    active,
                    status.last_schedule_time,
                    status.last_successful_time,
                ));
            }
            let jobs = plane.admin.list::<Job>(&Select::default()).await.unwrap().items;
            let mut names: Vec<_> = jobs.iter().map(|job| job.metadata.name.clone()).collect();
            names.sort();
            first.shutdown().await;
            if let Some(second) = second {
                second.shutdown().await;
            }
            let mut runs = runs.lock().unwrap().clone();
            runs.sort();
            (runs, names, statuses, fault.writes())
        })
    };
    let (runs, names, statuses, writes) = scenario(None);
    assert!(runs.len() > 20 && writes > 60, "{} runs, {writes} writes", runs.len());
    for before in 1..=writes {
        let (again, left, told, _) = scenario(Some(before));
        assert_eq!(again, runs, "killed before write {before}");
        assert_eq!((left, told), (names.clone(), statuses.clone()), "killed before write {before}");
    }
}
