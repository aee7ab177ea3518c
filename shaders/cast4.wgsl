// y[i] = x[i], bytes as floats, four at a time.
// Layout: x bound as words, four bytes to a word, lowest first; y as vectors of four.
// Grid: one invocation per four elements.
// Constants: FIXED + PER_SAMPLE·n invocations.
override FIXED: u32 = 1u;
override PER_SAMPLE: u32 = 0u;

@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= FIXED + PER_SAMPLE * step.n) { return; }
    let value = vec4<f32>((vec4<u32>(x[i]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u));
    y[i] = epilogue(value, i * 4u);
}
