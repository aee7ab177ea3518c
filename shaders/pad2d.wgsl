// What lies around NHWC images: y[b, i, j, c] = x[b, f(i - TOP, H), f(j - LEFT, W), c]; MODE 0: f is the identity
// and VALUE stands outside; 1: f reflects at the first and last row (c b | a b c | b a); 2: f holds them.
// With negative TOP and LEFT mode 0 crops, which is the gradient of padding.
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
override TOP: i32 = 0;
override LEFT: i32 = 0;
override MODE: u32 = 0u;
override VALUE: f32 = 0.0;

fn origin(at: i32, n: u32) -> i32 {
    let last = i32(n) - 1;
    if (MODE == 1u) { return min(abs(at), 2 * last - abs(at)); }
    if (MODE == 2u) { return clamp(at, 0, last); }
    return at;
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
    let column = origin(i32(i / C % Q) - LEFT, W);
    let row = origin(i32(i / (C * Q) % P) - TOP, H);
    let image = i / (C * Q * P);
    var value = V(VALUE);
    if (row >= 0 && row < i32(H) && column >= 0 && column < i32(W)) {
        value = unpack(x[((image * H + u32(row)) * W + u32(column)) * C + c]);
    }
    y[i] = pack(epilogue(value, i * WIDTH));
}
