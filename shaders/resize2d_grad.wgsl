// Gradient of resizing: dx[b, i, j, c] is the sum of dy[b, p, q, c] by the weight with which (p, q) reads (i, j), in
// ascending order of (p, q). Weights are whole numbers over 4·P·Q = 1 / SCALE where BILINEAR, else 1 or 0.
// dx: (N·, H, W, C), dy: (N·, P, Q, C), row-major, V is a vector of WIDTH channels, C counts V; one invocation per V
// of dx, folded grid. V of dx: ELEMENTS + PER_SAMPLE · n.
@group(0) @binding(1) var<storage, read> dy: array<S>;
@group(0) @binding(2) var<storage, read_write> dx: array<S>;

override ELEMENTS: u32 = 0u;
override PER_SAMPLE: u32 = 1u;
override H: i32 = 1;
override W: i32 = 1;
override C: u32 = 1u;
override P: i32 = 1;
override Q: i32 = 1;
override BILINEAR: bool = false;
override SCALE: f32 = 1.0;

// The weight, over 2m where BILINEAR, with which element o of m reads element r of n.
fn weight(o: i32, m: i32, r: i32, n: i32) -> i32 {
    let at = (2 * o + 1) * n;
    if (!BILINEAR) { return select(0, 1, at / (2 * m) == r); }
    let low = max(at - m, 0) / (2 * m);
    let rest = select(max(at - m, 0) % (2 * m), 0, low == n - 1);
    return select(0, 2 * m - rest, low == r) + select(0, rest, low + 1 == r);
}

// First and last element of m whose position may lie less than one away from element r of n.
fn readers(m: i32, r: i32, n: i32) -> vec2<i32> {
    let first = max(m * (2 * r - 1) - n, 0) / (2 * n);
    let last = min((m * (2 * r + 3) - n + 2 * n - 1) / (2 * n), m - 1);
    return vec2<i32>(first, last);
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
    let at = i32(i / C);
    let column = at % W;
    let row = at / W % H;
    let image = at / (W * H) * P;
    let rows = readers(P, row, H);
    let columns = readers(Q, column, W);
    var sum = V(0.0);
    for (var p = rows.x; p <= rows.y; p++) {
        let by = weight(p, P, row, H);
        if (by == 0) { continue; }
        for (var q = columns.x; q <= columns.y; q++) {
            let share = weight(q, Q, column, W);
            if (share == 0) { continue; }
            sum += f32(by * share) * unpack(dy[u32((image + p) * Q + q) * C + c]);
        }
    }
    dx[i] = pack(epilogue(sum * SCALE, i * WIDTH));
}
