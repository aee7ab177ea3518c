// Batch statistics, first launch: mean and sum of squared deviations of chunks of rows, for each channel.
// x is (rows, C) with V a vector of WIDTH channels, stored as S. Rows are shifted by the lane's first value so that a large
// mean cancels nothing. GATHER: the T lanes are merged in order into one partial, else each writes its own.
// partials[(chunk * P + t) * 2 + {0: mean, 1: deviations}] of C V each, P = 1 with GATHER, else T.
// Grid: GROUPS * TILES workgroups, TILES = ceil(C / SPAN), SPAN = min(C, LANES), T = LANES / SPAN.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read_write> partials: array<S>;
var<workgroup> means: array<V, 256>;
var<workgroup> deviations: array<V, 256>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = id.x + id.y * counts.x;
    if (group >= GROUPS * TILES) { return; }
    let g = group / TILES;
    let c = group % TILES * SPAN + lane % SPAN;
    let t = lane / SPAN;
    let inside = t < T && c < C;
    let rows = ROWS + ROWS_PER_SAMPLE * step.n;
    let chunk = (rows + GROUPS - 1u) / GROUPS;
    var mean = V(0.0);
    var deviation = V(0.0);
    let n_rows = select(0u, count(g, t, T, rows), inside);
    if (n_rows > 0u) {
        let first = (g * chunk + t) * C + c;
        let shift = unpack(x[first]);
        var sum = V(0.0);
        for (var k = 1u; k < n_rows; k++) {
            let d = unpack(x[first + k * T * C]) - shift;
            sum += d;
            deviation += d * d;
        }
        let average = sum / f32(n_rows);
        mean = shift + average;
        deviation = larger(deviation - sum * average, V(0.0));
    }
    if (!GATHER) {
        if (inside) {
            partials[((g * T + t) * 2u) * C + c] = pack(mean);
            partials[((g * T + t) * 2u + 1u) * C + c] = pack(deviation);
        }
        return;
    }
    means[lane] = mean;
    deviations[lane] = deviation;
    workgroupBarrier();
    if (t == 0u && c < C) {
        var total = f32(n_rows);
        for (var s = 1u; s < T; s++) {
            let more = f32(count(g, s, T, rows));
            if (more > 0.0) {
                let delta = means[lane + s * SPAN] - mean;
                let part = more / (total + more);
                deviation += deviations[lane + s * SPAN] + delta * delta * (total * part);
                mean += delta * part;
                total += more;
            }
        }
        partials[(g * 2u) * C + c] = pack(mean);
        partials[(g * 2u + 1u) * C + c] = pack(deviation);
    }
}
