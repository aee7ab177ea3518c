// Max pooling: y[b, p, q, c] = max over taps (i, j) of x[b, p*SH + i - TOP, q*SW + j - LEFT, c]; taps outside
// the image do not count, NaN counts as the largest. NHWC, V is a vector of WIDTH channels, stored as S.
// Grid: one lane per V of y in row-major order.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read_write> y: array<S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * LANES + lane;
    if (i >= ITEMS + ITEMS_PER_SAMPLE * step.n) { return; }
    let c = i % C;
    let q = i / C % OW;
    let row = i / (C * OW);
    let p = row % OH;
    let image = row / OH * H;
    var best = of_rank(I(LOWEST));
    var bits = U(0u);
    for (var kh = 0u; kh < KH; kh++) {
        let h = p * SH + kh;
        if (PADDED && (h < TOP || h >= H + TOP)) { continue; }
        for (var kw = 0u; kw < KW; kw++) {
            let w = q * SW + kw;
            if (PADDED && (w < LEFT || w >= W + LEFT)) { continue; }
            let value = unpack(x[((image + h - TOP) * W + w - LEFT) * C + c]);
            best = max(best, value);
            bits = max(bits, bitcast<U>(value) & U(0x7fffffffu));
        }
    }
    y[i] = pack(epilogue(select(best, bitcast<V>(bits), bits > U(0x7f800000u)), i * WIDTH));
}
