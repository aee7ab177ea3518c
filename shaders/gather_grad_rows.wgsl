// y[indices[j], c] = Σ dy[k, c] over j and the places k that follow it in its chain, in ascending order, for each j that
// is the first of its index.
// Layout: indices (rows), chain (rows, 2), dy (rows, ROW), y (ROWS, ROW).
// Grid: one invocation per element of dy.
// Constants: FIXED + PER_SAMPLE·n indices; ROWS, ROW; FLOATS: the indices are floats.
override FIXED: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override ROWS: u32 = 1u;
override ROW: u32 = 1u;
override FLOATS: bool = false;

@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read> chain: array<vec2<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    let rows = FIXED + PER_SAMPLE * step.n;
    if (i >= rows * ROW) { return; }
    let column = i % ROW;
    var j = i / ROW;
    let row = index_of(indices[j], ROWS, FLOATS);
    if (row >= ROWS || chain[j].x != 0u) { return; }
    var sum = step.zero;
    // A chain has each place once.
    for (var k = 0u; k < rows * counts.z; k++) {
        if (j >= rows) { break; }
        sum = sum + dy[j * ROW + column];
        j = chain[j].y;
    }
    let at = row * ROW + column;
    y[at] = epilogue(sum, at);
}
