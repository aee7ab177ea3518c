// Gradient of batch normalisation, second launch: the partials partials of batch_norm_grad_sums added in order.
// dbeta = sum dy, dgamma = r * sum dy * (x - mean) with r = 1 / sqrt(var + EPSILON), and for the third launch
// coefficients (4, channels) = mean, gamma * r, dbeta / rows, r * dgamma / rows.
// Lanes as in batch_norm_merge.
// Grid: ceil(channels / SPAN) workgroups of LANES = SPAN * SHARERS.
@group(0) @binding(1) var<storage, read> partials: array<V>;
@group(0) @binding(2) var<storage, read> gamma: array<V>;
@group(0) @binding(3) var<storage, read> mean: array<V>;
@group(0) @binding(4) var<storage, read> variance: array<V>;
@group(0) @binding(5) var<storage, read_write> dgamma: array<V>;
@group(0) @binding(6) var<storage, read_write> dbeta: array<V>;
@group(0) @binding(7) var<storage, read_write> coefficients: array<V>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = (id.x + id.y * counts.x) * SPAN + lane % SPAN;
    var plain = V(0.0);
    var product = V(0.0);
    if (c < extents.channels) {
        for (var p = lane / SPAN; p < extents.partials; p += SHARERS) {
            plain += partials[(p * 2u) * extents.channels + c];
            product += partials[(p * 2u + 1u) * extents.channels + c];
        }
    }
    var all = Sums(plain, product);
    if (SHARERS > 1u) { all = add_lanes(lane, all); }
    if (lane < SPAN && c < extents.channels) {
        let r = inverseSqrt(variance[c] + EPSILON);
        let inv_rows = 1.0 / f32(max(extents.rows + extents.rows_per_sample * step.n, 1u));
        dgamma[c] = all.product * r;
        dbeta[c] = all.plain;
        coefficients[c] = mean[c];
        coefficients[extents.channels + c] = gamma[c] * r;
        coefficients[2u * extents.channels + c] = all.plain * inv_rows;
        coefficients[3u * extents.channels + c] = all.product * r * r * inv_rows;
    }
}
