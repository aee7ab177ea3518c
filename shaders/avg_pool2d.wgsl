// Average pooling for windows of many pixels: y[b, p, q, c] = sum over taps (i, j) inside the image of
// x[b, p*SH + i - TOP, q*SW + j - LEFT, c], divided by their number, or with PADDING by KH * KW.
// NHWC, V is a vector of WIDTH channels, stored as S.
// Grid: one lane per V of y in row-major order.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read_write> y: array<S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let item = (id.x + id.y * counts.x) * LANES + lane;
    if (item >= ITEMS + ITEMS_PER_SAMPLE * step.n) { return; }
    let c = item % C;
    let row = item / (C * OW);
    let image = row / OH * H;
    let first_h = max(row % OH * SH, TOP) - TOP;
    let first_w = max(item / C % OW * SW, LEFT) - LEFT;
    let end_h = min(row % OH * SH + KH - TOP, H);
    let end_w = min(item / C % OW * SW + KW - LEFT, W);
    var all = V(0.0);
    for (var h = first_h; h < end_h; h++) {
        var sum = V(0.0);
        for (var w = first_w; w < end_w; w++) { sum += unpack(x[((image + h) * W + w) * C + c]); }
        all += sum;
    }
    let count = select((end_h - first_h) * (end_w - first_w), KH * KW, PADDING);
    y[item] = pack(epilogue(all / f32(count), item * WIDTH));
}
