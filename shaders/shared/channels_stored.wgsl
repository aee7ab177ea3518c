// A number for each channel, read as vectors.
@group(0) @binding(2) var<storage, read> gamma: array<S>;
@group(0) @binding(3) var<storage, read> beta: array<S>;
fn gamma_at(i: u32) -> V {
    return unpack(gamma[i]);
}
fn beta_at(i: u32) -> V {
    return unpack(beta[i]);
}
