// Batch statistics, second launch: the partials of batch_norm_statistics joined into mean and
// biased variance (both NaN in a channel that holds a number that is not finite), and what the third launch needs:
// coefficients (3, channels) = mean, gamma / sqrt(var + EPSILON), beta.
// Grid: ceil(channels / SPAN) workgroups of LANES = SPAN * SHARERS.
@group(0) @binding(1) var<storage, read> partials: array<V>;
@group(0) @binding(2) var<storage, read> gamma: array<V>;
@group(0) @binding(3) var<storage, read> beta: array<V>;
@group(0) @binding(4) var<storage, read_write> mean_out: array<V>;
@group(0) @binding(5) var<storage, read_write> variance_out: array<V>;
@group(0) @binding(6) var<storage, read_write> coefficients: array<V>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = (id.x + id.y * counts.x) * SPAN + lane % SPAN;
    var all = Moments(V(0.0), V(0.0), 0.0);
    if (c < extents.channels) {
        for (var p = lane / SPAN; p < select(extents.chunks * T, extents.chunks, GATHER); p += SHARERS) {
            let part = p * 3u * extents.channels + c;
            let n_rows = total(partials[part + 2u * extents.channels]) / f32(WIDTH);
            all = joined(all, Moments(partials[part], partials[part + extents.channels], n_rows));
        }
    }
    if (SHARERS > 1u) { all = join_lanes(lane, all); }
    if (lane < SPAN && c < extents.channels) {
        let variance = finite_or_nan(all.deviation, all.deviation / max(all.total, 1.0));
        let mean = finite_or_nan(all.deviation, all.mean);
        mean_out[c] = mean;
        variance_out[c] = variance;
        coefficients[c] = mean;
        coefficients[extents.channels + c] = gamma[c] * inverseSqrt(variance + EPSILON);
        coefficients[2u * extents.channels + c] = beta[c];
    }
}
