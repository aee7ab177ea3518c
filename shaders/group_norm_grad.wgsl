// Gradient of group normalisation to its input, with x as (N, P, G, C):
// dx = r * (gamma * dy - A / COUNT - (x - mean) * r^2 * B / COUNT) with r = 1 / sqrt(variance + EPSILON),
// A = sum over the group of gamma * dy, B = sum of gamma * dy * (x - mean).
// V is a vector of WIDTH channels, stored as S; C counts V. Lanes, groups and grid as in group_norm.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;
@group(0) @binding(5) var<storage, read> dy: array<S>;
@group(0) @binding(6) var<storage, read_write> dx: array<S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = (id.x + id.y * counts.x) * (LANES / T) + lane / T;
    let t = lane % T;
    let inside = group < GROUPS + GROUPS_PER_SAMPLE * step.n;
    let g = group % G;
    let first = (group / G * P * G + g) * C;
    let first_p = select(0u, t, PSTEP > 1u);
    let first_c = select(0u, t, CSTEP > 1u);
    var plains = V(0.0);
    var products = V(0.0);
    var center = 0.0;
    var r = 0.0;
    if (inside) {
        center = mean[group];
        r = inverseSqrt(variance[group] + EPSILON);
        for (var p = first_p; p < P; p += PSTEP) {
            for (var c = first_c; c < C; c += CSTEP) {
                let i = first + p * G * C + c;
                let d = unpack(dy[i]) * gamma_at(g * C + c);
                plains += d;
                products += d * (unpack(x[i]) - center);
            }
        }
    }
    let all = of_group(vec2<f32>(total(plains), total(products)), lane);
    if (!inside) { return; }
    let average = all.x / COUNT;
    let slope = all.y * r * r / COUNT;
    for (var p = first_p; p < P; p += PSTEP) {
        for (var c = first_c; c < C; c += CSTEP) {
            let i = first + p * G * C + c;
            let d = unpack(dy[i]) * gamma_at(g * C + c);
            dx[i] = pack(epilogue((d - average - (unpack(x[i]) - center) * slope) * r, i * WIDTH));
        }
    }
}
