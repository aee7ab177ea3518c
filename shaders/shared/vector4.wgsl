// Kernels over V with vectors of 4: neighbouring channels that a lane takes at once.
alias V = vec4<f32>;
alias U = vec4<u32>;
alias I = vec4<i32>;
const WIDTH = 4u;

// The largest component, and the sum of all.
fn largest(v: V) -> f32 {
    return max_f32(max_f32(v.x, v.y), max_f32(v.z, v.w));
}
fn total(v: V) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}
