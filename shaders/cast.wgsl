// y[i] = x[i], a byte as a float.
// Layout: x bound as words, four bytes to a word, lowest first; y.
// Grid: one invocation per element.
// Constants: FIXED + PER_SAMPLE·n elements.
override FIXED: u32 = 1u;
override PER_SAMPLE: u32 = 0u;

@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= FIXED + PER_SAMPLE * step.n) { return; }
    y[i] = epilogue(f32((x[i >> 2u] >> ((i & 3u) * 8u)) & 255u), i);
}
