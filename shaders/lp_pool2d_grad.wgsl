// Gradient of L2 pooling to its input: dx[b, h, w, c] = sum over windows (p, q) that contain (h, w) of
// dy[b, p, q, c] * x[b, h, w, c] / y[b, p, q, c], where y is 0 of dy * 0.
// NHWC, V is a vector of WIDTH channels, stored as S.
// Grid: one lane per V of dx in row-major order.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read> y: array<S>;
@group(0) @binding(3) var<storage, read> dy: array<S>;
@group(0) @binding(4) var<storage, read_write> dx: array<S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let item = (id.x + id.y * counts.x) * LANES + lane;
    if (item >= ITEMS + ITEMS_PER_SAMPLE * step.n) { return; }
    let c = item % C;
    let column = item / C % W + LEFT;
    let row = item / (C * W) % H + TOP;
    let image = item / (C * W * H) * OH;
    let end_p = min(row / SH + 1u, OH);
    let end_q = min(column / SW + 1u, OW);
    let here = unpack(x[item]);
    var all = V(step.zero);
    for (var p = first_window(row, KH, SH); p < end_p; p++) {
        var sum = V(0.0);
        for (var q = first_window(column, KW, SW); q < end_q; q++) {
            let window = ((image + p) * OW + q) * C + c;
            let size = unpack(y[window]);
            let no_size = (bitcast<U>(size) & U(0x7fffffffu)) == U(0u);
            sum += select(here / size, V(step.zero), no_size) * unpack(dy[window]);
        }
        all += sum;
    }
    dx[item] = pack(epilogue(all, item * WIDTH));
}
