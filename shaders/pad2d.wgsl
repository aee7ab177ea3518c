// Zeros around NHWC pictures: y[b, i, j, c] = x[b, i - TOP, j - LEFT, c] inside the picture, else 0.
// With negative TOP and LEFT the same kernel crops, which is the gradient of padding.
// x: (N·, H, W, C), y: (N·, P, Q, C), row-major; one invocation per element of y, folded grid.
// Elements of y: ELEMENTS + PER_SAMPLE · n.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

override ELEMENTS: u32 = 0u;
override PER_SAMPLE: u32 = 1u;
override H: u32 = 1u;
override W: u32 = 1u;
override C: u32 = 1u;
override P: u32 = 1u;
override Q: u32 = 1u;
override TOP: i32 = 0;
override LEFT: i32 = 0;

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
    let column = i32(i / C % Q) - LEFT;
    let row = i32(i / (C * Q) % P) - TOP;
    let picture = i / (C * Q * P);
    var value = 0.0;
    if (row >= 0 && row < i32(H) && column >= 0 && column < i32(W)) {
        value = x[((picture * H + u32(row)) * W + u32(column)) * C + c];
    }
    y[i] = epilogue(value, i);
}
