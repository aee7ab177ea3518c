// Gradient of max pooling to its input, for windows that may overlap: each pixel gathers dy from the windows
// that contain it and whose first maximum, in row-major order of taps, it is; NaN is the largest.
// dx[b, h, w, c] = sum over windows (p, q) that contain (h, w) of dy[b, p, q, c] where (h, w) is the first tap with
// x = y[b, p, q, c]. NHWC, V is a vector of WIDTH channels, stored as S.
// Grid: one lane per V of dx in row-major order.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read> y: array<S>;
@group(0) @binding(3) var<storage, read> dy: array<S>;
@group(0) @binding(4) var<storage, read_write> dx: array<S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * LANES + lane;
    if (i >= ITEMS + ITEMS_PER_SAMPLE * step.n) { return; }
    let c = i % C;
    let column = i / C % W + LEFT;
    let line = i / (C * W);
    let row = line % H + TOP;
    let image = line / H;
    let here = rank(unpack(x[i]));
    var sum = V(0.0);
    for (var p = first_window(row, KH, SH); p <= min(row / SH, OH - 1u); p++) {
        for (var q = first_window(column, KW, SW); q <= min(column / SW, OW - 1u); q++) {
            let window = ((image * OH + p) * OW + q) * C + c;
            let top = rank(unpack(y[window]));
            var hit = select(V(0.0), V(1.0), here == top);
            if (any(hit > V(0.0))) {
                let taps = (row - p * SH) * KW + column - q * SW;
                for (var t = 0u; t < taps; t++) {
                    let h = p * SH + t / KW;
                    let w = q * SW + t % KW;
                    if (h < TOP || h >= H + TOP || w < LEFT || w >= W + LEFT) { continue; }
                    hit = select(hit, V(0.0), rank(unpack(x[((image * H + h - TOP) * W + w - LEFT) * C + c])) == top);
                }
                sum += select(V(0.0), unpack(dy[window]), hit > V(0.0));
            }
        }
    }
    dx[i] = pack(epilogue(sum, i * WIDTH));
}
