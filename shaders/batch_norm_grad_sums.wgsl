// Gradient of batch normalisation, first launch: for chunks of rows and each channel the sums of dy and of
// dy * (x - mean). x and dy are (rows, channels) with V a vector of WIDTH channels, stored as S.
// Chunks, lanes and partials as in batch_norm_statistics: partials[(chunk * P + t) * 2 + {0, 1}] of channels V each.
// Grid: chunks * tiles workgroups, tiles = ceil(channels / SPAN), SPAN = min(channels, LANES), T = LANES / SPAN.
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read> mean: array<S>;
@group(0) @binding(3) var<storage, read> dy: array<S>;
@group(0) @binding(4) var<storage, read_write> partials: array<S>;

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
    var plain = V(0.0);
    var product = V(0.0);
    if (inside) {
        let center = unpack(mean[c]);
        for (var r = g * chunk + t; r < min((g + 1u) * chunk, rows); r += T) {
            let d = unpack(dy[r * channels + c]);
            plain += d;
            product += d * (unpack(x[r * channels + c]) - center);
        }
    }
    if (!GATHER) {
        if (inside) {
            partials[((g * T + t) * 2u) * channels + c] = pack(plain);
            partials[((g * T + t) * 2u + 1u) * channels + c] = pack(product);
        }
        return;
    }
    let all = add_lanes(lane, Sums(plain, product));
    if (t == 0u && c < channels) {
        partials[(g * 2u) * channels + c] = pack(all.plain);
        partials[(g * 2u + 1u) * channels + c] = pack(all.product);
    }
}
