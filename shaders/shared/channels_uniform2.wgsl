// A number for each channel, read as vectors of 2 from uniform buffers of VECTORS vectors of 4.
@group(0) @binding(2) var<uniform> gamma: array<vec4<f32>, VECTORS>;
@group(0) @binding(3) var<uniform> beta: array<vec4<f32>, VECTORS>;
fn gamma_at(i: u32) -> V {
    return select(gamma[i >> 1u].xy, gamma[i >> 1u].zw, (i & 1u) == 1u);
}
fn beta_at(i: u32) -> V {
    return select(beta[i >> 1u].xy, beta[i >> 1u].zw, (i & 1u) == 1u);
}
