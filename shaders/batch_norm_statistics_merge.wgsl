// Batch statistics of parts of the rows joined (Chan et al. 1979) into mean and biased variance (both NaN in a channel that holds a
// number that is not finite), scale = gamma / sqrt(var + EPSILON) and shift = beta - mean * scale.
// partials[part * 3 + {0: mean, 1: sum of squared deviations, 2: number of rows}] of channels V each.
// Grid: ceil(channels / SPAN) workgroups of LANES = SPAN * SHARERS.
@group(0) @binding(1) var<storage, read> partials: array<V>;
@group(0) @binding(2) var<storage, read> gamma: array<V>;
@group(0) @binding(3) var<storage, read> beta: array<V>;
@group(0) @binding(4) var<storage, read_write> mean_out: array<V>;
@group(0) @binding(5) var<storage, read_write> variance_out: array<V>;
@group(0) @binding(6) var<storage, read_write> scale_and_shift: array<V>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channels = extents.channels;
    let c = (id.x + id.y * counts.x) * SPAN + lane % SPAN;
    let all = of_parts(lane, c);
    if (lane < SPAN && c < channels) {
        let variance = finite_or_nan(all.deviation, all.deviation / max(all.total, 1.0));
        let mean = finite_or_nan(all.deviation, all.mean);
        let scale = gamma[c] * inverseSqrt(variance + EPSILON);
        mean_out[c] = mean;
        variance_out[c] = variance;
        scale_and_shift[c] = scale;
        scale_and_shift[behind(channels) + c] = beta[c] - mean * scale;
    }
}
