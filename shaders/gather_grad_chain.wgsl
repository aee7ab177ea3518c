// before[j] is whether an earlier place holds the same index as place j; next[j] is the first later one that does, or none:
// next[j] = min {k > j : indices[k] = indices[j]}, as chain[j] = (before, next).
// Layout: indices (rows), chain (rows, 2).
// Grid: one invocation per index.
// Constants: FIXED + PER_SAMPLE·n indices; ROWS of the table; FLOATS: the indices are floats.
override FIXED: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override ROWS: u32 = 1u;
override FLOATS: bool = false;

@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> chain: array<vec2<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let j = (id.x + id.y * counts.x) * 64u + lane;
    let rows = FIXED + PER_SAMPLE * step.n * counts.z;
    if (j >= rows) { return; }
    let row = index_of(indices[j], ROWS, FLOATS);
    var before = 0u;
    var next = rows;
    for (var k = 0u; k < rows; k++) {
        if (index_of(indices[k], ROWS, FLOATS) == row) {
            if (k < j) {
                before = 1u;
            } else if (k > j) {
                next = k;
                break;
            }
        }
    }
    chain[j] = vec2<u32>(before, next);
}
