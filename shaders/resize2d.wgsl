// Images in another size: y[b, p, q, c] lies at x's row ((2p + 1)·H - P) / 2P and column ((2q + 1)·W - Q) / 2Q
// (half-pixel centres), between the neighbours where BILINEAR, else the nearest; beyond the edge the edge counts.
// Weights are whole numbers over 4·P·Q = 1 / SCALE.
// x: (N·, H, W, C), y: (N·, P, Q, C), row-major, V is a vector of WIDTH channels, C counts V; one invocation per V of
// y, folded grid. V of y: ELEMENTS + PER_SAMPLE · n.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read_write> y: array<S>;

override ELEMENTS: u32 = 0u;
override PER_SAMPLE: u32 = 1u;
override H: u32 = 1u;
override W: u32 = 1u;
override C: u32 = 1u;
override P: u32 = 1u;
override Q: u32 = 1u;
override BILINEAR: bool = false;
override SCALE: f32 = 1.0;

// The two neighbours of element o of m among n, and the second one's weight over 2m; one alone counts half twice.
fn neighbours(o: u32, m: u32, n: u32) -> vec3<u32> {
    let at = (2u * o + 1u) * n;
    if (!BILINEAR) {
        let nearest = at / (2u * m);
        return vec3<u32>(nearest, nearest, 0u);
    }
    let low = (max(at, m) - m) / (2u * m);
    let rest = (max(at, m) - m) % (2u * m);
    if (low + 1u >= n || rest == 0u) { return vec3<u32>(low, low, m); }
    return vec3<u32>(low, low + 1u, rest);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) counts: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= ELEMENTS + PER_SAMPLE * step.n) {
        return;
    }
    let c = i % C;
    let rows = neighbours(i / (C * Q) % P, P, H);
    let columns = neighbours(i / C % Q, Q, W);
    let image = i / (C * Q * P) * H;
    let upper = (image + rows.x) * W;
    var value = unpack(x[(upper + columns.x) * C + c]);
    if (BILINEAR) {
        let lower = (image + rows.y) * W;
        let left = f32(2u * Q - columns.z);
        let right = f32(columns.z);
        let above = left * value + right * unpack(x[(upper + columns.y) * C + c]);
        let below = left * unpack(x[(lower + columns.x) * C + c]) + right * unpack(x[(lower + columns.y) * C + c]);
        value = (f32(2u * P - rows.z) * above + f32(rows.z) * below) * SCALE;
    }
    y[i] = pack(epilogue(value, i * WIDTH));
}
