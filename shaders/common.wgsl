// Stands in front of every kernel: the step record at binding 0 and the functions that kernels share.
// Grids are folded into two axes: the linear workgroup number is id.x + id.y * counts.x.
struct Step {
    n: u32,
    step: u32,
    seed: vec2<u32>,
    inv_n: f32,
    scalars: array<vec4<f32>, 4>,
}
@group(0) @binding(0) var<uniform> step: Step;

// NaN by its bits: drivers may assume that no value is NaN.
fn is_nan_f32(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// tanh with a relative error below 4e-6 everywhere: an odd series near 0, the clamped exponential elsewhere.
fn tanh_f32(x: f32) -> f32 {
    let s = x * x;
    let near = x * (1.0 + s * (-0.33333333 + s * (0.13333333 + s * (-0.053968254 + s * 0.021869488))));
    let e = exp(2.0 * clamp(x, -10.0, 10.0));
    return select((e - 1.0) / (e + 1.0), near, abs(x) < 0.25);
}

fn sigmoid_f32(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(-clamp(x, -87.0, 87.0)));
}
