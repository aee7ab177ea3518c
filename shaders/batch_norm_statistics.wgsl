// Batch statistics, first launch: mean and sum of squared deviations of chunks of rows, for each channel.
// x is (rows, channels) with V a vector of WIDTH channels, stored as S. Rows are shifted by the lane's first value so that a large
// mean cancels nothing. GATHER: the T lanes are joined into one partial, else each writes its own.
// partials[(chunk * P + t) * 3 + {0: mean, 1: deviations, 2: number of rows}] of channels V each, P = 1 with GATHER, else T.
// Grid: chunks * tiles workgroups, tiles = ceil(channels / SPAN), SPAN = min(channels, LANES), T = LANES / SPAN.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read_write> partials: array<S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channels = extents.channels;
    let group = id.x + id.y * counts.x;
    if (group >= extents.chunks * extents.tiles) { return; }
    let g = group / extents.tiles;
    let c = group % extents.tiles * SPAN + lane % SPAN;
    let t = lane / SPAN;
    let inside = t < T && c < channels;
    let rows = extents.rows + extents.rows_per_sample * step.n;
    let chunk = (rows + extents.chunks - 1u) / extents.chunks;
    var mean = V(0.0);
    var deviation = V(0.0);
    let n_rows = select(0u, count(g, t, T, rows), inside);
    if (n_rows > 0u) {
        let first = (g * chunk + t) * channels + c;
        let shift = unpack(x[first]);
        var sum = V(0.0);
        for (var k = 1u; k < n_rows; k++) {
            let d = unpack(x[first + k * T * channels]) - shift;
            sum += d;
            deviation += d * d;
        }
        let average = sum / f32(n_rows);
        mean = shift + average;
        deviation = larger(deviation - sum * average, V(0.0));
    }
    if (!GATHER) {
        if (inside) {
            let partial = (g * T + t) * 3u * channels + c;
            partials[partial] = pack(mean);
            partials[partial + channels] = pack(deviation);
            partials[partial + 2u * channels] = pack(V(f32(n_rows)));
        }
        return;
    }
    let all = join_lanes(lane, Moments(mean, deviation, f32(n_rows)));
    if (t == 0u && c < channels) {
        let partial = g * 3u * channels + c;
        partials[partial] = pack(all.mean);
        partials[partial + channels] = pack(all.deviation);
        partials[partial + 2u * channels] = pack(V(all.total));
    }
}
