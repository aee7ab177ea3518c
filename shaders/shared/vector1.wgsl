// Kernels over V with vectors of 1: neighbouring channels that a lane takes at once.
alias V = f32;
alias U = u32;
alias I = i32;
const WIDTH = 1u;

// The largest component, and the sum of all.
fn largest(v: V) -> f32 {
    return v;
}
fn total(v: V) -> f32 {
    return v;
}
