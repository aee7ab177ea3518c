// Gradient of batch normalisation to its input, third launch:
// dx[r, c] = scale[c] * (dy[r, c] - average[c] - (x[r, c] - mean[c]) * slope[c]) with coefficients (4, channels) = mean,
// scale, average, slope. V is a vector of WIDTH channels, stored as S.
// A lane keeps its channel's coefficients for the rows that it has. Chunks, lanes and grid as in batch_norm_statistics.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read> dy: array<S>;
@group(0) @binding(3) var<storage, read> coefficients: array<S>;
@group(0) @binding(4) var<storage, read_write> dx: array<S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channels = extents.channels;
    let group = id.x + id.y * counts.x;
    let g = group / extents.tiles;
    let c = group % extents.tiles * SPAN + lane % SPAN;
    let t = lane / SPAN;
    if (g >= extents.chunks || t >= T || c >= channels) { return; }
    let rows = extents.rows + extents.rows_per_sample * step.n;
    let chunk = (rows + extents.chunks - 1u) / extents.chunks;
    let mean = unpack(coefficients[c]);
    let scale = unpack(coefficients[channels + c]);
    let average = unpack(coefficients[2u * channels + c]);
    let slope = unpack(coefficients[3u * channels + c]);
    for (var r = g * chunk + t; r < min((g + 1u) * chunk, rows); r += T) {
        let i = r * channels + c;
        dx[i] = pack(epilogue(scale * (unpack(dy[i]) - average - (unpack(x[i]) - mean) * slope), i * WIDTH));
    }
}
