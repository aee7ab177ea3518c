// Batch statistics, second launch: the partials of batch_norm_statistics merged in order (Chan et al. 1979) into mean and
// biased variance (both NaN in a channel that holds a number that is not finite), and what the third launch needs:
// coefficients (3, channels) = mean, gamma / sqrt(var + EPSILON), beta.
// What the SHARERS lanes of a channel have is merged in order by the first.
// Grid: ceil(channels / SPAN) workgroups of LANES = SPAN * SHARERS.
@group(0) @binding(1) var<storage, read> partials: array<V>;
@group(0) @binding(2) var<storage, read> gamma: array<V>;
@group(0) @binding(3) var<storage, read> beta: array<V>;
@group(0) @binding(4) var<storage, read_write> mean_out: array<V>;
@group(0) @binding(5) var<storage, read_write> variance_out: array<V>;
@group(0) @binding(6) var<storage, read_write> coefficients: array<V>;
var<workgroup> means: array<V, 64>;
var<workgroup> deviations: array<V, 64>;
var<workgroup> totals: array<f32, 64>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = (id.x + id.y * counts.x) * SPAN + lane % SPAN;
    let rows = extents.rows + extents.rows_per_sample * step.n;
    var mean = V(0.0);
    var deviation = V(0.0);
    var total = 0.0;
    if (c < extents.channels) {
        for (var p = lane / SPAN; p < select(extents.chunks * T, extents.chunks, GATHER); p += SHARERS) {
            let more = f32(select(count(p / T, p % T, T, rows), count(p, 0u, 1u, rows), GATHER));
            if (more > 0.0) {
                let delta = partials[(p * 2u) * extents.channels + c] - mean;
                let part = more / (total + more);
                deviation += partials[(p * 2u + 1u) * extents.channels + c] + delta * delta * (total * part);
                mean += delta * part;
                total += more;
            }
        }
    }
    if (SHARERS > 1u) {
        means[lane] = mean;
        deviations[lane] = deviation;
        totals[lane] = total;
        workgroupBarrier();
        if (lane < SPAN) {
            for (var s = 1u; s < SHARERS; s++) {
                let other = lane + s * SPAN;
                let more = totals[other];
                if (more > 0.0) {
                    let delta = means[other] - mean;
                    let part = more / (total + more);
                    deviation += deviations[other] + delta * delta * (total * part);
                    mean += delta * part;
                    total += more;
                }
            }
        }
    }
    if (lane < SPAN && c < extents.channels) {
        let variance = finite_or_nan(deviation, deviation / max(total, 1.0));
        mean = finite_or_nan(deviation, mean);
        mean_out[c] = mean;
        variance_out[c] = variance;
        coefficients[c] = mean;
        coefficients[extents.channels + c] = gamma[c] * inverseSqrt(variance + EPSILON);
        coefficients[2u * extents.channels + c] = beta[c];
    }
}
