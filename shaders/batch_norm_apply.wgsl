// Batch normalisation, third launch: y[r, c] = (x[r, c] - mean[c]) * scale[c] + beta[c] with coefficients (3, C) =
// mean, scale, beta. V = f32, or vec4<f32> where C is a multiple of 4; C counts V.
// Grid: one lane per V of y. Elements: ITEMS + ITEMS_PER_SAMPLE * n.
alias V = f32;
const WIDTH = 1u;
override LANES: u32 = 64u;
override ITEMS: u32;
override ITEMS_PER_SAMPLE: u32;
override C: u32;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read> coefficients: array<V>;
@group(0) @binding(3) var<storage, read_write> y: array<V>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * LANES + lane;
    if (i >= ITEMS + ITEMS_PER_SAMPLE * step.n) { return; }
    let c = i % C;
    let value = (x[i] - coefficients[c]) * coefficients[C + c] + coefficients[2u * C + c];
    y[i] = epilogue(value, i * WIDTH);
}
