// Gradient of group normalisation to gamma and beta, second launch: the PARTS partials of group_norm_grad_sums added
// in order. Grid: one lane per V of dgamma and dbeta, 2 * CHANNELS of them, V being a vector of WIDTH channels.
override CHANNELS: u32;
override PARTS: u32;
@group(0) @binding(1) var<storage, read> partials: array<S>;
@group(0) @binding(2) var<storage, read_write> dgamma: array<S>;
@group(0) @binding(3) var<storage, read_write> dbeta: array<S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * LANES + lane;
    if (i >= 2u * CHANNELS) { return; }
    var sum = V(0.0);
    for (var part = 0u; part < PARTS; part++) { sum += unpack(partials[part * 2u * CHANNELS + i]); }
    if (i < CHANNELS) { dgamma[i] = pack(sum); } else { dbeta[i - CHANNELS] = pack(sum); }
}
