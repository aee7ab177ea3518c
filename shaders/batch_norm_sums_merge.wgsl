// Sums for the gradient of batch normalisation, of parts of the rows added up: dbeta = sum dy, dgamma = r * sum dy * (x - mean) with
// r = 1 / sqrt(var + EPSILON); with scale = gamma * r slope = scale * r * dgamma / rows, offset = scale * dbeta / rows - mean * slope.
// Stacks of parts may have rows that are none; there are `all_rows` that are.
// partials[part * 2 + {0: sum dy, 1: sum dy * (x - mean)}] of channels V each.
// Grid: ceil(channels / SPAN) workgroups of LANES = SPAN * SHARERS.
@group(0) @binding(1) var<storage, read> partials: array<V>;
@group(0) @binding(2) var<storage, read> scale: array<V>;
@group(0) @binding(3) var<storage, read> mean: array<V>;
@group(0) @binding(4) var<storage, read> variance: array<V>;
@group(0) @binding(5) var<storage, read_write> dgamma: array<V>;
@group(0) @binding(6) var<storage, read_write> dbeta: array<V>;
@group(0) @binding(7) var<storage, read_write> slope: array<V>;
@group(0) @binding(8) var<storage, read_write> offset: array<V>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channels = extents.channels;
    let c = (id.x + id.y * counts.x) * SPAN + lane % SPAN;
    let rows = extents.rows + extents.rows_per_sample * step.n;
    var all = Sums(V(0.0), V(0.0));
    if (c < channels) {
        for (var p = lane / SPAN; p < n_parts(rows); p += SHARERS) {
            all.plain += partials[(p * 2u) * channels + c];
            all.product += partials[(p * 2u + 1u) * channels + c];
        }
    }
    all = add_lanes(lane, all);
    if (lane < SPAN && c < channels) {
        let r = inverseSqrt(variance[c] + EPSILON);
        let inv_rows = 1.0 / f32(max(extents.all_rows + extents.all_rows_per_sample * step.n, 1u));
        dgamma[c] = all.product * r;
        dbeta[c] = all.plain;
        let factor = scale[c] * (all.product * r * r * inv_rows);
        slope[c] = factor;
        offset[c] = scale[c] * (all.plain * inv_rows) - mean[c] * factor;
    }
}
