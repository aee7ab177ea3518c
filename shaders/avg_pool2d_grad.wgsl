// Gradient of average pooling for windows of many pixels: dx[b, h, w, c] = sum over windows (p, q) that contain (h, w) of
// dy[b, p, q, c] divided by the number of the window's pixels inside the image, or with PADDING by KH * KW.
// NHWC, V is a vector of WIDTH channels, stored as S.
// Grid: one lane per V of dx in row-major order.
@group(0) @binding(1) var<storage, read> dy: array<S>;
@group(0) @binding(2) var<storage, read_write> dx: array<S>;

// Pixels inside an image of `size` of a window that begins at padded coordinate `at`.
fn inside(at: u32, k: u32, before: u32, size: u32) -> u32 {
    return min(at + k, before + size) - max(at, before);
}

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
    var all = V(step.zero);
    for (var p = first_window(row, KH, SH); p < end_p; p++) {
        var sum = V(0.0);
        for (var q = first_window(column, KW, SW); q < end_q; q++) {
            let count = select(inside(p * SH, KH, TOP, H) * inside(q * SW, KW, LEFT, W), KH * KW, PADDING);
            sum += unpack(dy[((image + p) * OW + q) * C + c]) / f32(count);
        }
        all += sum;
    }
    dx[item] = pack(epilogue(all, item * WIDTH));
}
