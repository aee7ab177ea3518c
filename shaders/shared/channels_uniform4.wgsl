// A number for each channel, read as vectors of 4 from uniform buffers of VECTORS vectors of 4.
@group(0) @binding(2) var<uniform> gamma: array<vec4<f32>, VECTORS>;
@group(0) @binding(3) var<uniform> beta: array<vec4<f32>, VECTORS>;
fn gamma_at(i: u32) -> V {
    return gamma[i];
}
fn beta_at(i: u32) -> V {
    return beta[i];
}
