// A number for each channel, read one by one from uniform buffers of VECTORS vectors of 4.
@group(0) @binding(2) var<uniform> gamma: array<vec4<f32>, VECTORS>;
@group(0) @binding(3) var<uniform> beta: array<vec4<f32>, VECTORS>;
fn gamma_at(i: u32) -> V {
    return gamma[i >> 2u][i & 3u];
}
fn beta_at(i: u32) -> V {
    return beta[i >> 2u][i & 3u];
}
