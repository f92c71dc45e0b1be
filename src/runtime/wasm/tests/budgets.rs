//! Guests that take as much as they can get.

use super::super::super::network::fixture::Fixed;
use super::*;

#[test]
fn the_memory_limit_holds() {
    assert_eq!(run("eatmem", &["8"]), (Exit::Code(0), "holding 8 MiB\n".to_owned()));
    // Not even a message of its own allocator.
    assert_eq!(run("eatmem", &[]), (Exit::OutOfMemory, String::new()));
    // Already its initial memory is too much.
    let (exit, _) = run_with("eatmem", &["0"], |spec| spec.budget = memory(65_536));
    assert_eq!(exit, Exit::OutOfMemory);
}

#[test]
fn what_the_host_holds_for_a_guest_counts_too() {
    for what in ["open", "list"] {
        let budget = memory(3 << 20);
        let (exit, _) = run_with("load", &[what, "/data"], |spec| {
            spec.mounts.push(mount("/data", &Volume::empty_dir(1 << 20)));
            spec.budget = budget.clone();
        });
        assert_eq!(exit, Exit::OutOfMemory, "{what}");
        assert_eq!(budget.memory(), 0, "all was given back");
    }
}

#[test]
fn runs_that_share_a_budget_share_its_limits() {
    let real = real();
    real.threads.block_on(async {
        let limits = Limits { memory: Some(64 << 20), cpu: Some(200), ..Limits::default() };
        let budget = Budget::new(limits, real.clock, None);
        let start = async |args: &[&str], says: &str| {
            let mut spec = spec(&real.runtime, "load", args).await;
            spec.budget = budget.clone();
            let output = log_of(&spec);
            let container = real.runtime.start(spec).await;
            if !says.is_empty() {
                wait_for_output(&output, says).await;
            }
            container
        };
        let own = start(&["memory", "40"], "holding").await;
        let beside = start(&["memory", "40"], "").await;
        assert_eq!(beside.exited().await, Exit::OutOfMemory);
        assert_eq!(own.exit(), None);
        assert!(own.memory() > 40 << 20 && own.memory() < 64 << 20, "{}", own.memory());

        let (began, before) = (real.clock.monotonic(), budget.used());
        let spinning = [start(&["cpu"], "computing").await, start(&["cpu"], "computing").await];
        real.clock.sleep(Duration::from_secs(1)).await;
        let allowed = (real.clock.monotonic() - began) / 5 + Duration::from_millis(150);
        assert!(budget.used() - before < allowed, "{:?}", budget.used());
        assert!(spinning.iter().all(|run| run.exit().is_none() && run.cpu_time() > before));
    });
}

#[test]
fn the_processor_limit_holds() {
    let real = real();
    real.threads.block_on(async {
        let mut spec = spec(&real.runtime, "spin", &[]).await;
        let limits = Limits { cpu: Some(200), ..Limits::default() };
        spec.budget = Budget::new(limits, real.clock, None);
        let output = log_of(&spec);
        let began = real.clock.monotonic();
        let container = real.runtime.start(spec).await;
        wait_for_output(&output, "spinning").await;
        real.clock.sleep(Duration::from_secs(1)).await;
        let allowed = (real.clock.monotonic() - began) / 5 + Duration::from_millis(100);
        assert!(container.cpu_time() < allowed, "{:?}", container.cpu_time());
    });
}

#[test]
fn sockets_are_bounded_and_given_back() {
    let real = real();
    real.threads.block_on(async {
        let run = async |what: &str, bytes: u64, says: &str| {
            let mut spec = spec(&real.runtime, "load", &[what]).await;
            spec.network = Some(Arc::new(Fixed("127.255.0.11".parse().unwrap())));
            spec.budget = memory(bytes);
            let budget = spec.budget.clone();
            let output = log_of(&spec);
            let container = real.runtime.start(spec).await;
            if !says.is_empty() {
                wait_for_output(&output, says).await;
                container.kill();
            }
            let exit = real.clock.timeout(DEADLINE, container.exited()).await.unwrap();
            assert_eq!(budget.memory(), 0, "all was given back");
            exit
        };
        for what in ["listen", "dial"] {
            assert_eq!(run(what, 64 << 20, "told no after ").await, Exit::Killed, "{what}");
            assert_eq!(run(what, 4 << 20, "").await, Exit::OutOfMemory, "{what}");
        }
    });
}

#[test]
fn who_has_all_its_sockets_keeps_none_from_others() {
    let real = real();
    real.threads.block_on(async {
        let start = async |name: &str, args: &[&str], own: &str| {
            let mut spec = spec(&real.runtime, name, args).await;
            spec.network = Some(Arc::new(Fixed(own.parse().unwrap())));
            let output = log_of(&spec);
            (real.runtime.start(spec).await, output)
        };
        // As many each time: what one had is there for the next, ports included.
        let mut told = Vec::new();
        for _ in 0..2 {
            let (greedy, output) = start("load", &["dial"], "127.255.0.13").await;
            wait_for_output(&output, "told no after ").await;
            let echoes = ["tcp-echo", "0.0.0.0:7011", "udp-echo", "0.0.0.0:7012"];
            let (other, echoed) = start("connect", &echoes, "127.255.0.14").await;
            let exit = real.clock.timeout(DEADLINE, other.exited()).await.unwrap();
            let expected = "tcp-echo 0.0.0.0:7011: ping from 127.255.0.14\n\
                            udp-echo 0.0.0.0:7012: ping from 127.255.0.14\n";
            let said = echoed.tail(usize::MAX, usize::MAX);
            assert_eq!((exit, said.as_str()), (Exit::Code(0), expected));
            told.push(output.tail(usize::MAX, usize::MAX));
            greedy.kill();
            assert_eq!(greedy.exited().await, Exit::Killed);
        }
        // `new-socket-limit`, as C calls it.
        assert!(told[0].contains("No file descriptors available (os error 33)"), "{}", told[0]);
        assert_eq!(told[0], told[1]);
    });
}

#[test]
fn fuel_is_counted_and_a_limit_ends_the_run() {
    let real = real();
    real.threads.block_on(async {
        let run = async |fuel| {
            let mut spec = spec(&real.runtime, "hello", &["you"]).await;
            spec.fuel = fuel;
            let container = real.runtime.start(spec).await;
            (container.exited().await, container.fuel())
        };
        assert_eq!(run(Fuel::Off).await, (Exit::Code(0), None));
        let (exit, used) = run(Fuel::Count).await;
        let used = used.unwrap();
        assert!(exit == Exit::Code(0) && used > 1_000, "{exit:?} {used}");
        assert_eq!(run(Fuel::Count).await, (Exit::Code(0), Some(used)), "the same work");
        assert_eq!(run(Fuel::Limit(2 * used)).await, (Exit::Code(0), Some(used)));
        let (exit, some) = run(Fuel::Limit(used / 2)).await;
        let says = format!("the fuel limit of {} was used up: ", used / 2);
        assert!(matches!(&exit, Exit::Trap(text) if text.starts_with(&says)), "{exit:?}");
        assert!(some.is_some_and(|some| some >= used / 2 && some < used), "{some:?}");

        // One that is killed is told of, too; and it is counted while it runs.
        let mut spec = spec(&real.runtime, "load", &["cpu"]).await;
        spec.fuel = Fuel::Count;
        let output = log_of(&spec);
        let container = real.runtime.start(spec).await;
        wait_for_output(&output, "computing").await;
        let counted = async {
            while container.fuel().is_none_or(|fuel| fuel < used) {
                real.clock.sleep(Duration::from_millis(1)).await;
            }
        };
        real.clock.timeout(DEADLINE, counted).await.unwrap();
        container.kill();
        assert_eq!(container.exited().await, Exit::Killed);
        assert!(container.fuel() > Some(used));
    });
}
