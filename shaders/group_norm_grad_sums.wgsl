// Gradient of group normalisation to gamma and beta, first launch: for each channel the sums over samples and pixels of
// dy * (x - mean) / sqrt(variance + EPSILON) and of dy. x is (N, P, G, C), C counting V, a vector of WIDTH channels.
// Part (i, j) takes every PN-th sample from i on, of these every PP-th pixel from j on:
// partials[(part * 2 + {0, 1}) * G * C + g * C + c].
// Grid: one lane per part and V of channels, PN * PP * G * C of them.
override SAMPLES: u32;
override SAMPLES_PER_SAMPLE: u32;
override PN: u32;
override PP: u32;
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> variance: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<S>;
@group(0) @binding(5) var<storage, read_write> partials: array<S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let item = (id.x + id.y * counts.x) * LANES + lane;
    let channels = G * C;
    if (item >= PN * PP * channels) { return; }
    let k = item % channels;
    let part = item / channels;
    let samples = SAMPLES + SAMPLES_PER_SAMPLE * step.n;
    var products = V(0.0);
    var plain = V(0.0);
    for (var n = part / PP; n < samples; n += PN) {
        let center = mean[n * G + k / C];
        let r = inverseSqrt(variance[n * G + k / C] + EPSILON);
        var product = V(0.0);
        for (var p = part % PP; p < P; p += PP) {
            let i = (n * P + p) * channels + k;
            let d = unpack(dy[i]);
            plain += d;
            product += d * (unpack(x[i]) - center);
        }
        products += product * r;
    }
    partials[part * 2u * channels + k] = pack(products);
    partials[(part * 2u + 1u) * channels + k] = pack(plain);
}
