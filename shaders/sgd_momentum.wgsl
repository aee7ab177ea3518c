// v ← μ·v − η·g, then w ← w + v, or with Nesterov's rule w ← w + μ·v − η·g; η = step.scalars[0][0] (Keras SGD).
// Layout: the members of a group lie one behind the other at multiples of 256 bytes; the kernel runs over all of
// them and the gaps between.
// Grid: one invocation per four elements. Constants: COUNT elements, what lies behind them keeps its bits;
// MOMENTUM μ; NESTEROV.
alias V = vec4<f32>;
alias S = vec4<f32>;
fn unpack(s: S) -> V { return s; }
fn pack(v: V) -> S { return v; }
override COUNT: u32 = 4u;
override MOMENTUM: f32 = 0.9;
override NESTEROV: bool = false;

@group(0) @binding(1) var<storage, read_write> w: array<S>;
@group(0) @binding(2) var<storage, read> g: array<S>;
@group(0) @binding(3) var<storage, read_write> v: array<S>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i * 4u >= COUNT) { return; }
    let inside = vec4<u32>(i * 4u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COUNT);
    let drive = step.scalars[0][0] * unpack(g[i]);
    let weight = unpack(w[i]);
    let before = unpack(v[i]);
    let velocity = MOMENTUM * before - drive;
    var by = velocity;
    if (NESTEROV) { by = MOMENTUM * velocity - drive; }
    v[i] = pack(select(before, velocity, inside));
    w[i] = pack(select(weight, weight + by, inside));
}
