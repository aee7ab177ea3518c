// Gradient of max pooling to its input, for windows that do not overlap (KH <= SH, KW <= SW): each lane owns the
// SH x SW cell of pixels that begins with one window, finds the first maximum in row-major order of taps (NaN is the largest), and
// writes the whole cell; y is not read. Pixels that no window contains get 0.
// NHWC, V is a vector of WIDTH channels, stored as S. CH x CW cells cover an image; WHOLE: they are all
// whole and begin with a window. CELL = SH * SW. input0 is x at the pixel being stored, for the epilogue.
// Grid: one lane per cell and V of channels.
override CH: u32;
override CW: u32;
override WHOLE: bool;
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read> dy: array<S>;
@group(0) @binding(3) var<storage, read_write> dx: array<S>;
var<private> input0: V;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * LANES + lane;
    if (i >= ITEMS + ITEMS_PER_SAMPLE * step.n) { return; }
    let c = i % C;
    let q = i / C % CW;
    let line = i / (C * CW);
    let p = line % CH;
    let image = line / CH;
    let windowed = WHOLE || (p < OH && q < OW);
    var best = I(LOWEST - 1);
    var first = V(-1.0);
    var gradient = V(0.0);
    if (windowed) {
        gradient = unpack(dy[((image * OH + p) * OW + q) * C + c]);
    }
    var values: array<V, CELL>;
    for (var kh = 0u; kh < SH; kh++) {
        for (var kw = 0u; kw < SW; kw++) {
            let h = p * SH + kh;
            let w = q * SW + kw;
            if (WHOLE || (h >= TOP && h < H + TOP && w >= LEFT && w < W + LEFT)) {
                let value = unpack(x[((image * H + h - TOP) * W + w - LEFT) * C + c]);
                values[kh * SW + kw] = value;
                if (windowed && kh < KH && kw < KW) {
                    let order = rank(value);
                    if (WHOLE && kh == 0u && kw == 0u) {
                        first = V(0.0);
                        best = order;
                    } else {
                        first = select(first, V(f32(kh * SW + kw)), order > best);
                        best = max(best, order);
                    }
                }
            }
        }
    }
    for (var kh = 0u; kh < SH; kh++) {
        for (var kw = 0u; kw < SW; kw++) {
            let h = p * SH + kh;
            let w = q * SW + kw;
            if (WHOLE || (h >= TOP && h < H + TOP && w >= LEFT && w < W + LEFT)) {
                let o = ((image * H + h - TOP) * W + w - LEFT) * C + c;
                input0 = values[kh * SW + kw];
                dx[o] = pack(epilogue(select(V(0.0), gradient, first == V(f32(kh * SW + kw))), o * WIDTH));
            }
        }
    }
}
