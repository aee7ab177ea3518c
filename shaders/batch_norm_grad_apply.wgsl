// Gradient of batch normalisation to its input, third launch:
// dx[r, c] = scale[c] * (dy[r, c] - average[c] - (x[r, c] - mean[c]) * slope[c]) with coefficients (4, C) = mean,
// scale, average, slope. V is a vector of WIDTH channels, stored as S.
// A lane keeps its channel's coefficients for the rows that it has. Chunks, lanes and grid as in batch_norm_statistics.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read> dy: array<S>;
@group(0) @binding(3) var<storage, read> coefficients: array<S>;
@group(0) @binding(4) var<storage, read_write> dx: array<S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = id.x + id.y * counts.x;
    let g = group / TILES;
    let c = group % TILES * SPAN + lane % SPAN;
    let t = lane / SPAN;
    if (g >= GROUPS || t >= T || c >= C) { return; }
    let rows = ROWS + ROWS_PER_SAMPLE * step.n;
    let chunk = (rows + GROUPS - 1u) / GROUPS;
    let mean = unpack(coefficients[c]);
    let scale = unpack(coefficients[C + c]);
    let average = unpack(coefficients[2u * C + c]);
    let slope = unpack(coefficients[3u * C + c]);
    for (var r = g * chunk + t; r < min((g + 1u) * chunk, rows); r += T) {
        let i = r * C + c;
        dx[i] = pack(epilogue(scale * (unpack(dy[i]) - average - (unpack(x[i]) - mean) * slope), i * WIDTH));
    }
}
