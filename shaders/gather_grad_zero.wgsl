// y[i] = 0: the rows of a table that no index names.
// Layout: y (COUNT).
// Grid: one invocation per element.
override COUNT: u32 = 1u;

@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= COUNT) { return; }
    y[i] = epilogue(step.zero, i);
}
