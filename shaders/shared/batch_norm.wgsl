// Batch normalisation over rows of `channels` V, in `chunks` chunks of neighbouring rows. A workgroup of LANES has a tile of SPAN
// channels, of `tiles`; in the launches over rows T lanes share a channel and take every T-th row of a chunk, in those that merge
// SHARERS lanes take every SHARERS-th of the partials. GATHER: a chunk has one partial, else T.
override SPAN: u32;
override SHARERS: u32;
override T: u32;
override GATHER: bool;
override EPSILON: f32;

// Number of rows from row t of chunk g on, every `stride`-th, of `rows` in all.
fn count(g: u32, t: u32, stride: u32, rows: u32) -> u32 {
    let chunk = (rows + extents.chunks - 1u) / extents.chunks;
    let start = min(g * chunk, rows) + t;
    let end = min((g + 1u) * chunk, rows);
    return select(0u, (max(end, start) - start + stride - 1u) / stride, start < end);
}
