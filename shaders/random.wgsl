// Random numbers: y[row, e] = LOW + SCALE * u with u uniform in [0, 1), or, where NORMAL is 1, LOW + SCALE * z with z
// normal by Box and Muller: z = sqrt(-2 log(1 - u)) * cos(2 pi v). Element e of a row takes word e % 4 of the Philox
// 4x32-10 block with key = (seed, seed ^ PURPOSE), counter = (step, STREAM, row, e / 4); a normal number takes v from the
// block whose last word has its highest bit set. (rows, ROW) row-major.
// Grid: one lane per 4 elements of a row. Lanes: ITEMS + ITEMS_PER_SAMPLE * n.
override ITEMS: u32;
override ITEMS_PER_SAMPLE: u32;
override ROW: u32;
override STREAM: u32;
override PURPOSE: u32;
override NORMAL: u32;
override LOW: f32;
override SCALE: f32;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

fn units(words: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(words >> vec4<u32>(8u)) * 5.9604645e-8;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * LANES + lane;
    if (i >= ITEMS + ITEMS_PER_SAMPLE * step.n) { return; }
    let quads = (ROW + 3u) / 4u;
    let row = i / quads;
    let quad = i % quads;
    let key = vec2<u32>(step.seed.x, step.seed.y ^ PURPOSE);
    var u = units(philox(vec4<u32>(step.step, STREAM, row, quad), key));
    if (NORMAL == 1u) {
        let v = units(philox(vec4<u32>(step.step, STREAM, row, quad | 0x80000000u), key));
        u = sqrt(-2.0 * log(vec4<f32>(1.0) - u)) * cos(6.2831853 * (v - vec4<f32>(0.5)));
    }
    let r = vec4<f32>(LOW) + vec4<f32>(SCALE) * u;
    let o = row * ROW + quad * 4u;
    y[o] = epilogue(r.x, o);
    if (quad * 4u + 1u < ROW) { y[o + 1u] = epilogue(r.y, o + 1u); }
    if (quad * 4u + 2u < ROW) { y[o + 2u] = epilogue(r.z, o + 2u); }
    if (quad * 4u + 3u < ROW) { y[o + 3u] = epilogue(r.w, o + 3u); }
}
