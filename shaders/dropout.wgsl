// Dropout: y = x * SCALE where the element's random number is at least RATE, else 0. Four neighbours of a row share one
// Philox 4x32-10 block (Salmon et al. 2011): key = (seed, seed ^ PURPOSE), counter = (step, STREAM, row, element / 4).
// (rows, ROW) row-major; a row is what one index of the first axis holds.
// Grid: one lane per 4 elements of a row. Lanes: ITEMS + ITEMS_PER_SAMPLE * n.
override ITEMS: u32;
override ITEMS_PER_SAMPLE: u32;
override ROW: u32;
override STREAM: u32;
override PURPOSE: u32;
override RATE: f32;
override SCALE: f32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * LANES + lane;
    if (i >= ITEMS + ITEMS_PER_SAMPLE * step.n) { return; }
    let quads = (ROW + 3u) / 4u;
    let row = i / quads;
    let quad = i % quads;
    let words = philox(vec4<u32>(step.step, STREAM, row, quad), vec2<u32>(step.seed.x, step.seed.y ^ PURPOSE));
    let factors = select(vec4<f32>(step.zero), vec4<f32>(SCALE), vec4<f32>(words >> vec4<u32>(8u)) * 5.9604645e-8 >= vec4<f32>(RATE));
    let o = row * ROW + quad * 4u;
    y[o] = epilogue(x[o] * factors.x, o);
    if (quad * 4u + 1u < ROW) { y[o + 1u] = epilogue(x[o + 1u] * factors.y, o + 1u); }
    if (quad * 4u + 2u < ROW) { y[o + 2u] = epilogue(x[o + 2u] * factors.z, o + 2u); }
    if (quad * 4u + 3u < ROW) { y[o + 3u] = epilogue(x[o + 3u] * factors.w, o + 3u); }
}
