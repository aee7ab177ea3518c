// values[r, j] and indices[r, j]: the j-th of row r of x by falling value, equal values by rising index; NaN is the largest. Each pass
// finds the largest of what comes after the one before.
// x: (rows, COLUMNS), values and indices: (rows, K) row-major; one invocation per row.
// Rows: ROWS + PER_SAMPLE · n.
override ROWS: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override COLUMNS: u32 = 1u;
override K: u32 = 1u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> indices: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = (id.x + id.y * counts.x) * 64u + lane;
    if (row >= ROWS + PER_SAMPLE * step.n) { return; }
    var last = 0;
    var last_at = 0u;
    for (var j = 0u; j < K; j++) {
        var found = false;
        var best = 0;
        var at = 0u;
        for (var c = 0u; c < COLUMNS; c++) {
            let v = rank(x[row * COLUMNS + c]);
            let open = j == 0u || v < last || (v == last && c > last_at);
            if (open && (!found || v > best)) {
                found = true;
                best = v;
                at = c;
            }
        }
        values[row * K + j] = x[row * COLUMNS + at];
        indices[row * K + j] = at;
        last = best;
        last_at = at;
    }
}
