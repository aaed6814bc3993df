//! Stories of pools that are drawn by chance, and what must hold in each of them.
//!
//! A reference model (`model`) foretells what calls, messages and drains come to wherever the network
//! and the applications are smooth; where they are not, the laws hold (`laws`). Steps (`story`) are
//! played on four real pools (`play`, `world`) over a network whose behaviour is data. Time is
//! paused, randomness is seeded, and nothing is known of the pools but their public API.
//!
//! `PROPTEST_CASES` sets another number of cases, drawn from a seed that is new each time and shown;
//! `PROPTEST_RNG_SEED` beside it repeats them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod book;
mod laws;
mod model;
mod play;
mod story;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::env;
use std::io::{Write as _, stderr};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::test_runner::{Config, RngSeed};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use model::Model;
use story::{Machine, Step};
use support::alive_tasks;
use world::{DRAIN, MOMENT, World};

/// Steps of one story.
const STEPS: std::ops::Range<usize> = 1..40;
/// By then whatever is left to itself has ended: `retire_timeout`, `stall_timeout` and a drain.
const REST: Duration = Duration::from_secs(10 * 60);

/// The seed of stories that were asked for by their number alone.
static SEED: LazyLock<u64> = LazyLock::new(|| {
    let seed = rand::random();
    // A macro's output would be shown with one test's alone, if at all.
    let shown = format!("PROPTEST_RNG_SEED={seed} draws these stories\n");
    stderr().write_all(shown.as_bytes()).unwrap();
    seed
});

/// The same stories in every run, unless others are asked for: a change must not pass by luck.
fn config(cases: u32) -> Config {
    let failure_persistence = None;
    let config = Config { failure_persistence, ..Config::default() };
    let [more, seeded] =
        ["PROPTEST_CASES", "PROPTEST_RNG_SEED"].map(|name| env::var_os(name).is_some());
    match (more, seeded) {
        (false, false) => Config { cases, rng_seed: RngSeed::Fixed(20_260), ..config },
        (true, false) => Config { rng_seed: RngSeed::Fixed(*SEED), ..config },
        (_, true) => config,
    }
}

prop_state_machine! {
    #![proptest_config(config(400))]

    /// Everything comes exactly to what the model foretells.
    #[test]
    fn on_smooth_networks_the_model_is_met(sequential STEPS => Pools<false>);

    /// The laws hold, and what is not touched by trouble comes to what the model foretells.
    #[test]
    fn on_any_network_the_laws_hold(sequential STEPS => Pools<true>);
}

/// Pools on a network that is smooth or not, and the one thread of their runtime.
struct Pools<const ROUGH: bool> {
    runtime: Runtime,
    world: World,
}

impl<const ROUGH: bool> StateMachineTest for Pools<ROUGH> {
    type SystemUnderTest = Self;
    type Reference = Machine<ROUGH>;

    fn init_test(model: &Model) -> Self {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let world = runtime.block_on(async { World::new(&model.setup) });
        Self { runtime, world }
    }

    fn apply(mut state: Self, model: &Model, step: Step) -> Self {
        let Self { runtime, world } = &mut state;
        runtime.block_on(async {
            world.held_before = world.held();
            world.play(model, step).await;
            settle(world, model).await;
        });
        state
    }

    fn check_invariants(state: &Self, model: &Model) {
        state.runtime.block_on(async { laws::hold(&state.world, model) });
    }

    fn teardown(state: Self, model: Model) {
        let Self { runtime, world } = state;
        runtime.block_on(end(world, model));
    }
}

/// Lets a smooth network carry what it was given, and looks at what came of it.
async fn settle(world: &mut World, model: &Model) {
    world.meanwhile("a moment", sleep(MOMENT)).await;
    world.reap().await;
    laws::heard(world);
    laws::successors_are_untouched(world, model);
    laws::exactly_once_where_all_is_known(world, model);
}

/// Mends the network, lets all come to rest, drains all pools: each must be clean.
async fn end(mut world: World, mut model: Model) {
    let pairs: Vec<_> = model.links.keys().copied().collect();
    for (one, other) in pairs {
        if model.is_troubled(one, other) {
            let step = Step::Mend { one, other };
            model = Machine::<true>::apply(model, &step);
            world.play(&model, step).await;
            settle(&mut world, &model).await;
        }
    }
    world.drop_leases(|_| false);
    model.leases.clear();
    world.recall(|_| true).await;
    world.meanwhile("rest", sleep(REST)).await;
    settle(&mut world, &model).await;
    laws::hold(&world, &model);

    for node in 0..model::NODES {
        if model.closed[node] {
            continue;
        }
        let step = Step::DrainPool { node, words: 2 };
        world.held_before = world.held();
        model = Machine::<true>::apply(model, &step);
        world.play(&model, step).await;
        settle(&mut world, &model).await;
        laws::hold(&world, &model);
    }
    laws::reports_are_true(&world);

    let World { net, nodes, .. } = world;
    net.end();
    drop(nodes);
    sleep(DRAIN).await;
    // PROMISE "nothing left at rest": no task outlives the pools.
    assert_eq!(alive_tasks(), 0, "nothing left: tasks");
}
