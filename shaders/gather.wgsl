// y[j, c] = table[indices[j], c], or 0 where an index is outside 0 ≤ index < ROWS (a negative one is large unsigned).
// Layout: table (ROWS, ROW), indices (rows), y (rows, ROW), all bound as words: floats by their bits, bytes four to
// a word, lowest first.
// Grid: one invocation per element of the result.
// Constants: FIXED + PER_SAMPLE·n elements; ROWS, ROW; BYTES: the table holds bytes; FLOATS: the indices are floats; WHOLE: the result is u32, stored
// as it is, else f32 through the epilogue.
override FIXED: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override ROWS: u32 = 1u;
override ROW: u32 = 1u;
override BYTES: bool = false;
override FLOATS: bool = false;
override WHOLE: bool = false;

@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= FIXED + PER_SAMPLE * step.n) { return; }
    let row = index_of(indices[i / ROW], ROWS, FLOATS);
    var word = 0u;
    if (row < ROWS) {
        let at = row * ROW + i % ROW;
        if (BYTES) {
            word = (table[at >> 2u] >> ((at & 3u) * 8u)) & 255u;
        } else {
            word = table[at];
        }
    }
    if (WHOLE) {
        y[i] = word;
    } else if (BYTES) {
        y[i] = bitcast<u32>(epilogue(f32(word), i));
    } else {
        y[i] = bitcast<u32>(epilogue(bitcast<f32>(word), i));
    }
}
