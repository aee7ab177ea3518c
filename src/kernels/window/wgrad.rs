//! The gradient to the weights of a convolution of each channel alone.

use super::plan::{KEPT_OF_INPUT, MAX_TAPS, NOMINAL_BATCH, Plan};
use crate::{
    graph::{Candidate, DeviceClass, DeviceProfile, Epilogue, Slot},
    kernels::{
        Schedule,
        gemm::{Filter, LONG_BATCH, Window, split_sum},
        language::{Expr, count},
    },
    tensor::Count,
};

impl Filter {
    /// Returns the launches for a convolution of each channel alone, where its taps fit into one loop body.
    pub fn depthwise(&self, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Option<Candidate> {
        let few = self.kernel[0] * self.kernel[1] <= MAX_TAPS;
        (few && self.groups > 1 && self.groups == self.from_channels).then(|| weight_gradient(self, profile, epilogue))
    }
}

/// Parts of a sum at most, on a GPU.
const MOST_PARTS: usize = 1024;

/// Returns the way to compute the gradient to the weights of a convolution of each channel alone: every lane adds up
/// all taps of its channel over every `parts`-th strip, and a second launch adds the lanes' sums in order.
fn weight_gradient(f: &Filter, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
    let w = Window {
        name: "conv2d_grad_weight",
        transposed: false,
        from: f.input,
        to: f.output,
        from_channels: f.from_channels,
        to_channels: f.to_channels,
        kernel: f.kernel,
        strides: f.strides,
        pads: f.pads,
        dilation: f.dilation,
        groups: f.from_channels,
        images: f.images,
    };
    let prologues = epilogue.map_or(0, |e| e.prologues.len());
    let plan = Plan::new(&w, profile, f.kernel[0] * f.kernel[1] + KEPT_OF_INPUT * prologues);
    let (rows, columns) = (plan.rows, plan.columns);
    let (channels, strips) = (plan.channels(), plan.strips());
    let wanted = if profile.class == DeviceClass::Cpu { 64 } else { 256 * profile.multiprocessors as usize };
    let iterations = f.images.times((strips * (rows.steps() + 1)) as u64);
    let long = iterations.at(LONG_BATCH).div_ceil(profile.max_iterations / 2) as usize;
    let most = if profile.class == DeviceClass::Cpu { usize::MAX } else { MOST_PARTS };
    let parts = wanted.div_ceil(channels).min(most).min(f.images.at(NOMINAL_BATCH) as usize * strips).max(long).max(1);
    let [kh, kw] = f.kernel;
    let sums = kh * kw + usize::from(f.sums);

    let (mut k, x) = plan.kernel();
    let dy = k.bind("dy", plan.layout(), Slot::input(1));
    let y = k.bind_result("y", plan.layout(), Slot::Scratch(0));
    let items = Count { fixed: (parts * channels) as u64, per_sample: 0 };
    let (mut x, mut dy) = (plan.input(&mut k, (0, x), epilogue), plan.input(&mut k, (1, dy), epilogue));
    let [channel, part] = plan.item(&mut k, items);
    [&mut x, &mut dy].into_iter().for_each(|input| input.enter(&mut k, &channel));
    let zero = plan.vectors()[0].splat(0.0);
    // Those of the weights, by tap, and that of the gradient itself behind them.
    let sums: Vec<Expr> = (0..sums).map(|tap| k.var(format!("w{tap}"), &zero)).collect();
    k.for_("strip", &part, count(f.images.times(strips as u64)), parts, |k, number| {
        let strip = plan.strip(k, [&channel, number]);
        let halo = plan.variables(k, "d", rows.halo(), &zero);
        plan.for_steps(k, rows.steps(), |k| {
            let row = k.let_("p", &strip.result[0] + (Plan::step() * rows.phases).i32());
            let inside = Plan::step().less(rows.size).and(rows.results().inside(&row, 0..rows.steps()));
            let line = strip.index(f.output, channels, [&row, &strip.result[1], &channel]);
            let line = k.let_("line", line);
            let last: Vec<Expr> = (0..columns.size)
                .map(|o| {
                    let column = &strip.result[1] + o * columns.phases;
                    let inside = inside.and(columns.results().inside(&column, o..o + 1));
                    let inside = k.let_(format!("inside{o}"), inside);
                    let at = inside.select((&line + o * columns.phases * channels).u32(), 0u32);
                    let d = k.let_(format!("d{}_{o}", rows.halo()), inside.select(dy.at(&at), &zero));
                    sums.get(kh * kw).into_iter().for_each(|sum| k.add(sum, &d));
                    d
                })
                .collect();
            let d: Vec<Vec<Expr>> = halo.iter().cloned().chain([last]).collect();
            let mut read = |i: usize| -> Vec<Expr> {
                let pixels = plan.read(k, &x, &strip, i, &0u32.into()).pixels.into_iter().enumerate();
                pixels.map(|(p, (inside, value))| k.let_(format!("x{i}_{p}"), inside.select(value, &zero))).collect()
            };
            let read: Vec<Vec<Expr>> = (0..rows.reads_per_step()).map(&mut read).collect();
            let terms = columns.terms();
            for r in rows.step_terms() {
                for tap in 0..kw {
                    for s in terms.iter().filter(|s| s.tap == tap) {
                        k.add(&sums[r.tap * kw + tap], &read[r.read][s.read] * &d[r.result][s.result]);
                    }
                }
            }
            for (row, next) in d.iter().zip(&d[1..]) {
                row.iter().zip(next).for_each(|(d, next)| k.set(d, next));
            }
        });
    });
    let first = k.let_("first", part * (sums.len() * channels) + &channel);
    sums.iter().enumerate().for_each(|(tap, sum)| k.store(&y, &first + tap * channels, sum));

    let main = plan.launch(k, items);
    let n_sums = if f.sums { f.to_channels } else { 0 };
    let elements = Count { fixed: (kh * kw * f.to_channels + n_sums) as u64, per_sample: 0 };
    let schedule = Schedule { split: parts, ..plan.schedule() };
    let columns = [f.to_channels, n_sums].map(|n| n as u64);
    Candidate { prologues: prologues > 0, ..split_sum(schedule, main, elements, columns, profile, None) }
}
