// y[j, c] = table[indices[j], c], or 0 where an index is outside 0 ≤ index < ROWS (a negative one is large unsigned):
// gather for rows of a multiple of four elements and results of f32.
// Layout: table (ROWS, 4·QUADS) bound as words: floats by their bits, bytes four to a word, lowest first; indices
// (rows); y (rows, 4·QUADS).
// Grid: one invocation per four elements of the result.
// Constants: FIXED + PER_SAMPLE·n invocations; ROWS, QUADS; BYTES: the table holds bytes; FLOATS: the indices are floats.
override FIXED: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override ROWS: u32 = 1u;
override QUADS: u32 = 1u;
override BYTES: bool = false;
override FLOATS: bool = false;

@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= FIXED + PER_SAMPLE * step.n) { return; }
    let row = index_of(indices[i / QUADS], ROWS, FLOATS);
    var value = vec4<f32>(0.0);
    if (row < ROWS) {
        let at = row * QUADS + i % QUADS;
        if (BYTES) {
            value = vec4<f32>((vec4<u32>(table[at]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u));
        } else {
            let first = at * 4u;
            value = bitcast<vec4<f32>>(vec4<u32>(table[first], table[first + 1u], table[first + 2u], table[first + 3u]));
        }
    }
    y[i] = epilogue(value, i * 4u);
}
