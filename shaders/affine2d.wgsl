// Images resampled by affine maps: y[b, p, q, c] lies at x's column m[0]·q + m[1]·p + m[2] and row m[3]·q + m[4]·p + m[5]
// of image b's six numbers m, between four neighbours where BILINEAR, else the nearest. What lies outside is found by
// MODE: 0 the constant FILL, 1 the edge, 2 the image reflected with its edges twice, 3 the image repeated.
// x: (N, H, W, C), m: (N, 6), y: (N, P, Q, C), row-major; one invocation per STRIP pixels of a row, STRIPS a row, folded
// grid. Strips: PER_SAMPLE · n. `pixels` and `beside` of shared/pixels*.wgsl read WIDTH channels of a pixel at once.
@group(0) @binding(2) var<storage, read> m: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

override PER_SAMPLE: u32 = 1u;
override H: i32 = 1;
override W: i32 = 1;
override C: u32 = 1u;
override P: u32 = 1u;
override Q: u32 = 1u;
override STRIP: u32 = 8u;
override STRIPS: u32 = 1u;
override MODE: u32 = 0u;
override FILL: f32 = 0.0;
override BILINEAR: bool = false;

// The element of n that stands at place i, n where there is none.
fn place(i: i32, n: i32) -> i32 {
    if (MODE == 1u) { return clamp(i, 0, n - 1); }
    if (MODE == 0u) { return select(n, i, i >= 0 && i < n); }
    let period = select(n, 2 * n, MODE == 2u);
    let within = (i % period + period) % period;
    return min(within, period - 1 - select(within, 0, MODE == 3u));
}

fn nearest(at: f32) -> i32 {
    return i32(sign(at) * floor(abs(at) + 0.5));
}

fn store(o: u32, v: vec3<f32>) {
    y[o] = epilogue(v.x, o);
    if (WIDTH == 3u) {
        y[o + 1u] = epilogue(v.y, o + 1u);
        y[o + 2u] = epilogue(v.z, o + 2u);
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) counts: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= PER_SAMPLE * step.n) {
        return;
    }
    let first = i % STRIPS * STRIP;
    let p = i / STRIPS % P;
    let b = i / (STRIPS * P);
    let image = image_of(b);
    let start = vec2<f32>(m[b * 6u + 1u], m[b * 6u + 4u]) * f32(p) + vec2<f32>(m[b * 6u + 2u], m[b * 6u + 5u]);
    let along = vec2<f32>(m[b * 6u], m[b * 6u + 3u]);
    // A map that holds a number that is not finite leads nowhere: NaN, else 0.
    var nowhere = 0.0;
    for (var k = 0u; k < 6u; k++) {
        nowhere = finite_or_nan_f32(m[b * 6u + k], nowhere);
    }
    let last = min(first + STRIP, Q);
    for (var q = first; q < last; q++) {
        let at = along * f32(q) + start;
        let o = ((b * P + p) * Q + q) * C;
        if (!BILINEAR) {
            let row = place(nearest(at.y), H);
            let column = place(nearest(at.x), W);
            for (var c = 0u; c < C; c += WIDTH) {
                store(o + c, pixels(image, row, column, c) + nowhere);
            }
            continue;
        }
        let low = floor(at);
        let share = at - low + nowhere;
        let corner = vec2<i32>(low);
        let top = place(corner.y, H);
        let bottom = place(corner.y + 1, H);
        let left = place(corner.x, W);
        let right = place(corner.x + 1, W);
        for (var c = 0u; c < C; c += WIDTH) {
            let above = beside(image, top, left, right, c);
            let below = beside(image, bottom, left, right, c);
            let upper = above[0] * (1.0 - share.x) + above[1] * share.x;
            let lower = below[0] * (1.0 - share.x) + below[1] * share.x;
            store(o + c, upper * (1.0 - share.y) + lower * share.y);
        }
    }
}
