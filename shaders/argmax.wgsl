// y[o, i] = the first k with the largest x[o, k, i]; NaN is the largest.
// x: (outer, K, INNER), y: (outer, INNER) row-major, K = TERMS + TERMS_PER_SAMPLE · n; one invocation per element of y.
// Elements of y: ELEMENTS + PER_SAMPLE · n.
override ELEMENTS: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override TERMS: u32 = 1u;
override TERMS_PER_SAMPLE: u32 = 0u;
override INNER: u32 = 1u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let o = (id.x + id.y * counts.x) * 64u + lane;
    if (o >= ELEMENTS + PER_SAMPLE * step.n) { return; }
    let terms = TERMS + TERMS_PER_SAMPLE * step.n * counts.z;
    let first = o / INNER * INNER * terms + o % INNER;
    var best = rank(x[first]);
    var at = 0u;
    for (var k = 1u; k < terms; k++) {
        let v = rank(x[first + k * INNER]);
        if (v > best) { best = v; at = k; }
    }
    y[o] = at;
}
