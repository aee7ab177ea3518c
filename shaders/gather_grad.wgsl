// y[r, c] = Σⱼ dy[j, c] over the rows j with indices[j] = r, in ascending order of j.
// Layout: indices (rows), dy (rows, ROW), y (R, ROW).
// Grid: one invocation per element of the result; all read the same index at a time.
// Constants: COUNT elements of the result; FIXED + PER_SAMPLE·n indices; ROWS, ROW; FLOATS: the indices are floats.
override COUNT: u32 = 1u;
override FIXED: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override ROWS: u32 = 1u;
override ROW: u32 = 1u;
override FLOATS: bool = false;

@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= COUNT) { return; }
    let row = i / ROW;
    let column = i % ROW;
    let rows = FIXED + PER_SAMPLE * step.n * counts.z;
    var sum = step.zero;
    for (var j = 0u; j < rows; j = j + 1u) {
        if (index_of(indices[j], ROWS, FLOATS) == row) { sum = sum + dy[j * ROW + column]; }
    }
    y[i] = epilogue(sum, i);
}
