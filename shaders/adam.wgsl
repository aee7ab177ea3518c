// m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², w ← w − α·m / (√v + ε), α = step.scalars[0][1] (Kingma and Ba
// 2015 in the form of Keras: α = η·√(1 − β₂ᵗ) / (1 − β₁ᵗ) comes from the host).
// Layout: the members of a group lie one behind the other at multiples of 256 bytes; the kernel runs over all of
// them and the gaps between.
// Grid: one invocation per four elements. Constants: COUNT elements, what lies behind them keeps its bits;
// BETA1, BETA2, EPSILON.
alias V = vec4<f32>;
alias S = vec4<f32>;
fn unpack(s: S) -> V { return s; }
fn pack(v: V) -> S { return v; }
override COUNT: u32 = 4u;
override BETA1: f32 = 0.9;
override BETA2: f32 = 0.999;
override EPSILON: f32 = 1e-7;

@group(0) @binding(1) var<storage, read_write> w: array<S>;
@group(0) @binding(2) var<storage, read> g: array<S>;
@group(0) @binding(3) var<storage, read_write> m: array<S>;
@group(0) @binding(4) var<storage, read_write> v: array<S>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i * 4u >= COUNT) { return; }
    let inside = vec4<u32>(i * 4u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COUNT);
    let gradient = unpack(g[i]);
    let weight = unpack(w[i]);
    let mean_before = unpack(m[i]);
    let square_before = unpack(v[i]);
    let mean = BETA1 * mean_before + (1.0 - BETA1) * gradient;
    // Gaps may hold anything: no square root of a negative number.
    let square = max(BETA2 * square_before + (1.0 - BETA2) * gradient * gradient, vec4<f32>(0.0));
    m[i] = pack(select(mean_before, mean, inside));
    v[i] = pack(select(square_before, square, inside));
    w[i] = pack(select(weight, weight - step.scalars[0][1] * mean / (sqrt(square) + EPSILON), inside));
}
