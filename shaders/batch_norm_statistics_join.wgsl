// As batch_norm_statistics_merge, behind `before` channels whose mean and variance are known: of these only the scale is new.
// Grid: ceil(channels / SPAN) + ceil(before / LANES) workgroups of LANES = SPAN * SHARERS.
@group(0) @binding(1) var<storage, read> partials: array<V>;
@group(0) @binding(2) var<storage, read> gamma: array<V>;
@group(0) @binding(3) var<storage, read> mean_before: array<V>;
@group(0) @binding(4) var<storage, read> variance_before: array<V>;
@group(0) @binding(5) var<storage, read_write> mean_out: array<V>;
@group(0) @binding(6) var<storage, read_write> variance_out: array<V>;
@group(0) @binding(7) var<storage, read_write> scale_out: array<V>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channels = extents.channels;
    let before = extents.before;
    let group = id.x + id.y * counts.x;
    let own = (channels + SPAN - 1u) / SPAN;
    if (group >= own) {
        let known = (group - own) * LANES + lane;
        if (known < before) {
            let variance = variance_before[known];
            mean_out[known] = mean_before[known];
            variance_out[known] = variance;
            scale_out[known] = gamma[known] * inverseSqrt(variance + EPSILON);
        }
        return;
    }
    let c = group * SPAN + lane % SPAN;
    let all = of_parts(lane, c);
    if (lane < SPAN && c < channels) {
        let variance = finite_or_nan(all.deviation, all.deviation / max(all.total, 1.0));
        mean_out[before + c] = finite_or_nan(all.deviation, all.mean);
        variance_out[before + c] = variance;
        scale_out[before + c] = gamma[before + c] * inverseSqrt(variance + EPSILON);
    }
}
