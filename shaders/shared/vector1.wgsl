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

// Vector i of what vectors of 4 hold, of which v is the one that holds it.
fn piece(v: vec4<f32>, i: u32) -> V {
    return v[i & 3u];
}
