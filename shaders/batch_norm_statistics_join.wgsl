// As batch_norm_statistics_merge, behind `before` channels whose mean and variance are known: of these only scale and shift are new.
// Grid: ceil(channels / SPAN) + ceil(before / LANES) workgroups of LANES = SPAN * SHARERS.
@group(0) @binding(1) var<storage, read> partials: array<V>;
@group(0) @binding(2) var<storage, read> gamma: array<V>;
@group(0) @binding(3) var<storage, read> beta: array<V>;
@group(0) @binding(4) var<storage, read> mean_before: array<V>;
@group(0) @binding(5) var<storage, read> variance_before: array<V>;
@group(0) @binding(6) var<storage, read_write> mean_out: array<V>;
@group(0) @binding(7) var<storage, read_write> variance_out: array<V>;
@group(0) @binding(8) var<storage, read_write> scale_and_shift: array<V>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channels = extents.channels;
    let before = extents.before;
    let group = id.x + id.y * counts.x;
    let own = (channels + SPAN - 1u) / SPAN;
    var c = 0u;
    var mean = V(0.0);
    var variance = V(0.0);
    if (group >= own) {
        c = (group - own) * LANES + lane;
        if (c >= before) { return; }
        mean = mean_before[c];
        variance = variance_before[c];
    } else {
        c = group * SPAN + lane % SPAN;
        let all = of_parts(lane, c);
        if (lane >= SPAN || c >= channels) { return; }
        c += before;
        mean = finite_or_nan(all.deviation, all.mean);
        variance = finite_or_nan(all.deviation, all.deviation / max(all.total, 1.0));
    }
    let scale = gamma[c] * inverseSqrt(variance + EPSILON);
    mean_out[c] = mean;
    variance_out[c] = variance;
    scale_and_shift[c] = scale;
    scale_and_shift[behind(before + channels) + c] = beta[c] - mean * scale;
}
