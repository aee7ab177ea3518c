// Kernels over V with vectors of 2: neighbouring channels that a lane takes at once.
alias V = vec2<f32>;
alias U = vec2<u32>;
alias I = vec2<i32>;
const WIDTH = 2u;

// The largest component, and the sum of all.
fn largest(v: V) -> f32 {
    return max_f32(v.x, v.y);
}
fn total(v: V) -> f32 {
    return v.x + v.y;
}
