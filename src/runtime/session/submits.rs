//! Where a step is cut into submits, so that none takes long.

use std::{ops::Range, time::Duration};

/// What a submit may take, in nanoseconds.
const MAX_NS: f64 = 100e6;
/// How much too small an estimate may be that was not corrected yet.
const CAUTION: f64 = 10.0;
/// The steps whose submits are measured; the second has no first launches.
const MEASURED_STEPS: usize = 2;

/// The launches of each submit of a step, by their estimated times.
pub(super) struct Submits {
    /// Of each launch, at the plan's capacity.
    nanoseconds: Vec<f64>,
    caution: f64,
    max_launches: usize,
    ranges: Vec<Range<usize>>,
    /// Steps that are still to be measured.
    to_measure: usize,
}

impl Submits {
    /// Returns the submits of a step of launches with these estimates.
    pub fn new(nanoseconds: Vec<f64>) -> Self {
        let is_short = nanoseconds.iter().sum::<f64>() * CAUTION <= MAX_NS;
        let to_measure = if is_short { 0 } else { MEASURED_STEPS };
        let mut submits =
            Submits { nanoseconds, caution: CAUTION, max_launches: usize::MAX, ranges: Vec::new(), to_measure };
        submits.cut();
        submits
    }

    pub fn set_max_launches(&mut self, n: usize) {
        self.max_launches = n.max(1);
        self.cut();
    }

    /// Returns the launches of each submit, at least one submit.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// Returns whether the next step waits for each of its submits, to measure it.
    pub fn measures(&self) -> bool {
        self.to_measure > 0
    }

    /// Corrects the estimates of these launches by the time that they took for a batch of which the capacity is `scale` times as many.
    pub fn correct(&mut self, range: Range<usize>, took: Duration, scale: f64) {
        let estimates = &mut self.nanoseconds[range];
        let estimated: f64 = estimates.iter().sum();
        if estimated > 0.0 {
            let factor = took.as_nanos() as f64 * scale / estimated;
            estimates.iter_mut().for_each(|ns| *ns *= factor);
        }
    }

    /// Cuts the next step by what this one showed.
    pub fn end_step(&mut self) {
        if self.to_measure > 0 {
            self.to_measure -= 1;
            self.caution = 1.0;
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.ranges.clear();
        let (mut from, mut sum) = (0, 0.0);
        for (i, ns) in self.nanoseconds.iter().enumerate() {
            let ns = ns * self.caution;
            if i > from && (sum + ns > MAX_NS || i - from == self.max_launches) {
                self.ranges.push(from..i);
                (from, sum) = (i, 0.0);
            }
            sum += ns;
        }
        self.ranges.push(from..self.nanoseconds.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_cut_where_its_launches_take_longer_than_a_submit_may() {
        let mut submits = Submits::new(vec![4e6, 4e6, 4e6, 400e6, 1e6]);
        assert!(submits.measures());
        // Estimates that nothing has confirmed are taken tenfold.
        assert_eq!(submits.ranges(), [0..2, 2..3, 3..4, 4..5]);
        submits.correct(0..2, Duration::from_millis(160), 1.0);
        submits.correct(2..3, Duration::from_millis(1), 20.0);
        submits.correct(3..4, Duration::from_millis(3), 1.0);
        submits.end_step();
        // 80, 80, 20, 3 and 1 ms.
        assert_eq!(submits.ranges(), [0..1, 1..3, 3..5]);
        submits.end_step();
        assert!(!submits.measures());
        submits.set_max_launches(1);
        assert_eq!(submits.ranges().len(), 5);
    }

    #[test]
    fn a_short_step_is_one_submit_and_waits_for_nothing() {
        for nanoseconds in [vec![], vec![1e6; 9]] {
            let n = nanoseconds.len();
            let submits = Submits::new(nanoseconds);
            assert!(!submits.measures());
            assert!(submits.ranges().len() == 1 && submits.ranges()[0] == (0..n));
        }
    }
}
