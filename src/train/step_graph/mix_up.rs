//! Mixtures of samples and of their labels, to train on (Zhang et al. 2018).

use super::feeds::{Feed, Samples, Source, labelled, labelled_tensors};
use crate::{
    Error,
    data::Dataset,
    graph::{Graph, OpError, Step, Value},
    tensor::{Batch, DType, HostTensor, Philox, Purpose, Shape, stream_id},
};

/// The prefix of the names of the inputs that are mixed in.
const PREFIX: &str = "mix_up/";
const SHARE: &str = "mix_up/share";

/// Returns samples and labels mixed with those of other rows.
pub(super) fn build(g: &mut Graph, data: &Dataset, source: &Source, samples: Samples) -> Result<Samples, OpError> {
    let classes = vec![false; samples.labels.len()];
    let (other, other_labels) = labelled(g, data, source, &classes, PREFIX)?;
    let share = g.input(SHARE, [Batch], DType::F32);
    let mut mix = |a: Value, b: Value| {
        let axes = vec![1; g.shape(a).rank() - 1];
        let share = g.reshape(share, Shape::batched(1, &axes))?;
        let distance = g.sub(a, b)?;
        let weighted = g.mul(distance, share)?;
        g.add(b, weighted)
    };
    let x = mix(samples.x, other)?;
    let labels = samples.labels.iter().zip(other_labels).map(|(&y, other)| mix(y, other)).collect::<Result<_, _>>()?;
    Ok(Samples { x, labels, ..samples })
}

/// Returns the further inputs of a training step: the neighbour of each sample, and each sample's share.
pub(super) fn tensors<'d>(
    alpha: f32,
    step: &Step,
    data: &'d Dataset,
    source: &Source,
    rows: &[u32],
) -> Result<Vec<(String, Feed<'d>)>, Error> {
    let mut others = rows.to_vec();
    others.rotate_left(1.min(rows.len()));
    let classes = vec![false; data.targets().count()];
    let mut feeds = labelled_tensors(data, source, &classes, &others)?;
    feeds.iter_mut().for_each(|feed| feed.0.insert_str(0, PREFIX));
    let mut rng = Philox::new(step.seed, Purpose::Noise, stream_id(PREFIX).wrapping_add(step.step));
    let shares = rows.iter().map(|_| beta(&mut rng, f64::from(alpha)) as f32).collect();
    feeds.push((SHARE.to_owned(), Feed::Tensor(HostTensor::f32([rows.len()], shares)?)));
    Ok(feeds)
}

/// Draws from the Gamma distribution of this shape (Marsaglia and Tsang 2000).
fn gamma(rng: &mut Philox, shape: f64) -> f64 {
    if shape < 1.0 {
        return gamma(rng, shape + 1.0) * rng.uniform(0.0, 1.0).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    loop {
        let x = rng.normal();
        let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
        if v > 0.0 && (1.0 - rng.uniform(0.0, 1.0)).ln() < x * x / 2.0 + d * (1.0 - v + v.ln()) {
            return d * v;
        }
    }
}

/// Draws from the Beta distribution of `alpha` and `alpha`.
fn beta(rng: &mut Philox, alpha: f64) -> f64 {
    let (a, b) = (gamma(rng, alpha), gamma(rng, alpha));
    if a + b > 0.0 { a / (a + b) } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_the_moments_of_their_distribution() {
        let mut rng = Philox::new(3, Purpose::Test, 0);
        for alpha in [0.2, 1.0, 4.0] {
            let all: Vec<f64> = (0..40_000).map(|_| beta(&mut rng, alpha)).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64;
            let wanted = 0.25 / (2.0 * alpha + 1.0);
            assert!(
                (mean - 0.5).abs() < 0.01 && (variance - wanted).abs() < 0.03 * wanted,
                "{alpha}: {mean} {variance}"
            );
        }
    }
}
