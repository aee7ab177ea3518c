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

// Vector i of what vectors of 4 hold, of which v is the one that holds it.
fn piece(v: vec4<f32>, i: u32) -> V {
    return select(v.xy, v.zw, (i & 1u) == 1u);
}
