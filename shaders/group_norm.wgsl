// Group normalisation, with x as (N, P, G, C): y[n, p, g, c] = (x[n, p, g, c] - mean[n, g]) * r[n, g] * gamma[g, c] +
// beta[g, c] with r = 1 / sqrt(variance + EPSILON), mean and biased variance being those of a group over p and c.
// V is a vector of WIDTH channels, stored as S. Sums are those of distances from one of the group's numbers, so that a
// large mean cancels nothing.
// Grid: ceil(groups / (LANES / T)) workgroups.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(4) var<storage, read_write> y: array<S>;
@group(0) @binding(5) var<storage, read_write> mean_out: array<f32>;
@group(0) @binding(6) var<storage, read_write> variance_out: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = (id.x + id.y * counts.x) * (LANES / T) + lane / T;
    let t = lane % T;
    let inside = group < GROUPS + GROUPS_PER_SAMPLE * step.n;
    let g = group % G;
    let first = (group / G * P * G + g) * C;
    let first_p = select(0u, t, PSTEP > 1u);
    let first_c = select(0u, t, CSTEP > 1u);
    var sums = V(0.0);
    var squares = V(0.0);
    var shift = 0.0;
    if (inside) {
        shift = largest(unpack(x[first]));
        for (var p = first_p; p < P; p += PSTEP) {
            for (var c = first_c; c < C; c += CSTEP) {
                let d = unpack(x[first + p * G * C + c]) - shift;
                sums += d;
                squares += d * d;
            }
        }
    }
    let all = of_group(vec2<f32>(total(sums), total(squares)), lane);
    if (!inside) { return; }
    let average = all.x / COUNT;
    // Both are NaN in a group that holds a number that is not finite.
    let mean = finite_or_nan_f32(all.y, shift + average);
    let variance = finite_or_nan_f32(all.y, max(all.y / COUNT - average * average, 0.0));
    let r = inverseSqrt(variance + EPSILON);
    if (t == 0u) {
        mean_out[group] = mean;
        variance_out[group] = variance;
    }
    for (var p = first_p; p < P; p += PSTEP) {
        for (var c = first_c; c < C; c += CSTEP) {
            let i = first + p * G * C + c;
            y[i] = pack(epilogue((unpack(x[i]) - mean) * r * gamma_at(g * C + c) + beta_at(g * C + c), i * WIDTH));
        }
    }
}
