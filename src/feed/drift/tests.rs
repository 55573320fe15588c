// SPDX-License-Identifier: MPL-2.0

use super::*;

const SECOND: u64 = 1_000_000_000;
const STEP: u64 = 40 * NANOS_PER_MILLI;

/// A corrector that gets a tag each 40 ms of its media. The lateness counts with its corrections.
struct Run {
    corrector: DriftCorrector,
    /// Running time in nanoseconds.
    now: u64,
    /// Time on the publisher's clock in nanoseconds.
    own: i64,
    steps: Vec<(u64, i64)>,
}

impl Run {
    fn new() -> Self {
        Run {
            corrector: DriftCorrector::new(1000),
            now: 4 * SECOND,
            own: 0,
            steps: Vec::new(),
        }
    }

    /// Plays media for this many seconds of our clock, of a publisher that is fast by this many parts
    /// per million.
    fn play(&mut self, seconds: u64, ppm: f64) -> &mut Self {
        for _ in 0..seconds * SECOND / STEP {
            self.now += STEP;
            self.own += (STEP as f64 * (1.0 + ppm * 1e-6)) as i64;
            self.receive(0);
        }
        self
    }

    /// Receives a tag after this delay in nanoseconds.
    fn receive(&mut self, delay: u64) {
        let arrival = self.now + delay;
        let lateness = arrival as i64 - self.own - self.corrector.drift().corrected;
        let step = self.corrector.advance(lateness, arrival);
        if step != 0 {
            self.steps.push((arrival, step));
        }
    }

    fn corrected_millis(&self) -> i64 {
        self.corrector.drift().corrected / MILLI
    }

    /// Asserts that nothing has been corrected.
    #[track_caller]
    fn expect_nothing(&self) {
        assert_eq!(self.steps, []);
        assert_eq!(self.corrector.drift().corrected, 0);
    }
}

#[test]
fn a_fast_clock_is_slowed_down_by_a_millisecond_in_a_second_at_most() {
    let mut run = Run::new();
    run.play(3600, 300.0);
    // 1.08 s in an hour.
    assert!(
        (-1080..=-1076).contains(&run.corrected_millis()),
        "{}",
        run.corrected_millis()
    );
    assert!((run.corrector.drift().ppm - 300.0).abs() < 1.0);
    assert!(run.steps.iter().all(|(_, step)| *step == -1));
    for steps in run.steps.windows(2) {
        assert!(steps[1].0 - steps[0].0 >= SECOND);
    }
}

#[test]
fn a_clock_that_runs_with_ours_is_left_alone() {
    let mut run = Run::new();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..1000 {
        for _ in 0..25 {
            run.now += STEP;
            run.own += STEP as i64;
            run.receive(random.u64(..2 * NANOS_PER_MILLI));
        }
    }
    run.expect_nothing();
}

#[test]
fn a_file_that_is_sent_fast_is_left_alone() {
    // At 20, 2 and 1.02 times its pace.
    for ppm in [19e6, 1e6, 20e3] {
        Run::new().play(900, ppm).expect_nothing();
    }
}

#[test]
fn media_that_is_sent_slower_for_a_while_is_left_alone() {
    for seconds in [20, 300] {
        let mut run = Run::new();
        run.play(300, 0.0).play(seconds, -50e3).play(600, 0.0);
        run.expect_nothing();
        // It catches up.
        run.play(seconds, 50e3).play(3600, 0.0);
        run.expect_nothing();
    }
}

#[test]
fn a_network_that_is_too_slow_is_no_drift() {
    let mut run = Run::new();
    run.play(600, 100.0).play(3600, -20e3);
    let corrected = run.corrected_millis();
    // The drift that was known goes on, and the backlog of 72 s does not count.
    assert!((-440..=-350).contains(&corrected), "{corrected}");
    // The publisher drops the backlog.
    run.own += 72 * SECOND as i64;
    run.play(600, 100.0);
    let corrected = run.corrected_millis();
    assert!((-500..=-420).contains(&corrected), "{corrected}");
}

#[test]
fn stalls_and_bursts_are_no_drift() {
    let mut run = Run::new();
    for _ in 0..200 {
        run.play(25, 0.0);
        // Five seconds arrive together.
        let end = run.now + 5 * SECOND;
        while run.now < end {
            run.now += STEP;
            run.own += STEP as i64;
            run.receive(end - run.now);
        }
    }
    run.expect_nothing();
}

#[test]
fn a_wrong_timestamp_now_and_then_is_no_drift() {
    let mut run = Run::new();
    for _ in 0..60 {
        run.play(120, 0.0);
        run.own += 80 * MILLI;
        run.receive(0);
        run.own -= 80 * MILLI;
    }
    run.expect_nothing();
}

#[test]
fn a_leap_of_the_pipelines_clock_is_no_drift() {
    for leap in [-30, -1, 1, 30] {
        let mut run = Run::new();
        run.now += 100 * SECOND;
        run.play(600, 0.0);
        run.now = run.now.checked_add_signed(leap * SECOND as i64).unwrap();
        run.play(600, 0.0);
        run.expect_nothing();
    }
}

#[test]
fn media_that_waited_for_the_pipeline_is_no_drift() {
    let mut run = Run::new();
    for _ in 0..600 {
        run.play(1, 400.0);
        run.corrector.handle_backpressure();
    }
    run.expect_nothing();
    assert_eq!(run.corrector.drift().ppm, 0.0);
}

#[test]
fn the_drift_goes_on_over_a_jump_of_the_publishers_clock() {
    let mut run = Run::new();
    run.play(1200, 100.0);
    let before = run.corrected_millis();
    // The timeline places the new clock at its arrival.
    run.corrector.handle_move(run.now);
    run.own = run.now as i64 - run.corrector.drift().corrected;
    run.play(50, 100.0);
    assert!((-5..=-3).contains(&(run.corrected_millis() - before)));
    run.play(1200, 100.0);
    assert!((-127..=-121).contains(&(run.corrected_millis() - before)));
}

#[test]
fn another_publisher_starts_without_the_drift_of_the_one_before() {
    let mut run = Run::new();
    run.play(1200, 100.0);
    let before = run.corrected_millis();
    run.corrector.start_publisher();
    assert_eq!(run.corrector.drift().ppm, 0.0);
    run.own = run.now as i64 - run.corrector.drift().corrected;
    run.play(1200, 0.0);
    let change = run.corrected_millis() - before;
    assert!(change.abs() <= 4, "{change}");
}

#[test]
fn a_publisher_whose_first_tag_was_late_returns_to_the_latency_of_the_first() {
    let mut run = Run::new();
    run.play(600, 0.0);
    // The first tag comes 100 ms late, and the others do not.
    run.corrector.start_publisher();
    run.own -= 100 * MILLI;
    run.play(600, 0.0);
    assert!((98..=102).contains(&run.corrected_millis()));
    // One that has kept three seconds stays behind by as much.
    run.corrector.start_publisher();
    run.own += 3000 * MILLI;
    let before = run.corrected_millis();
    run.play(600, 0.0);
    assert_eq!(run.corrected_millis(), before);
}

#[test]
fn extreme_times_do_no_harm() {
    let mut corrector = DriftCorrector::new(u32::MAX);
    let times = [0, u64::MAX, 1, u64::MAX / 2, u64::MAX - 1, 5 * SECOND];
    for arrival in times {
        for lateness in [i64::MIN, i64::MAX, 0] {
            assert!(corrector.advance(lateness, arrival).abs() <= 1);
        }
    }
}
