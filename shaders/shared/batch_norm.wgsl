// Batch normalisation over rows of `channels` V, in `chunks` chunks of neighbouring rows. A workgroup of LANES has a tile of SPAN
// channels, of `tiles`; in the launches over rows T lanes share a channel and take every T-th row of a chunk, in those that merge
// SHARERS lanes take every SHARERS-th of the partials. GATHER: a chunk has one partial, else T.
override SPAN: u32;
override SHARERS: u32;
override T: u32;
override GATHER: bool;
override EPSILON: f32;
// Levels of a tree over SHARERS lanes.
override LEVELS: u32;

// Number of rows from row t of chunk g on, every `stride`-th, of `rows` in all.
fn count(g: u32, t: u32, stride: u32, rows: u32) -> u32 {
    let chunk = (rows + extents.chunks - 1u) / extents.chunks;
    let start = min(g * chunk, rows) + t;
    let end = min((g + 1u) * chunk, rows);
    return select(0u, (max(end, start) - start + stride - 1u) / stride, start < end);
}

// Where the second of two results of so many channels begins that are bound as one, each at a multiple of 256 bytes.
fn behind(channels: u32) -> u32 {
    return (channels * WIDTH + 63u) / 64u * 64u / WIDTH;
}

// Mean and sum of squared deviations of so many rows.
struct Moments {
    mean: V,
    deviation: V,
    total: f32,
}

// Those of the rows of both (Chan et al. 1979).
fn joined(a: Moments, b: Moments) -> Moments {
    if (b.total <= 0.0) { return a; }
    let delta = b.mean - a.mean;
    let part = b.total / (a.total + b.total);
    return Moments(
        a.mean + delta * part,
        a.deviation + b.deviation + delta * delta * (a.total * part),
        a.total + b.total,
    );
}

var<workgroup> moments: array<Moments, 256>;

// What the SHARERS lanes of a channel have, joined in a tree; the first of them gets it.
fn join_lanes(lane: u32, own: Moments) -> Moments {
    var all = own;
    var n = SHARERS;
    for (var level = 0u; level < LEVELS; level++) {
        moments[lane] = all;
        workgroupBarrier();
        let half = (n + 1u) / 2u;
        if (lane / SPAN + half < n) { all = joined(all, moments[lane + half * SPAN]); }
        n = half;
        workgroupBarrier();
    }
    return all;
}

// Two sums.
struct Sums {
    plain: V,
    product: V,
}

var<workgroup> sums: array<Sums, 256>;

// The sums that the SHARERS lanes of a channel have, added in a tree; the first of them gets the result.
fn add_lanes(lane: u32, own: Sums) -> Sums {
    var all = own;
    var n = SHARERS;
    for (var level = 0u; level < LEVELS; level++) {
        sums[lane] = all;
        workgroupBarrier();
        let half = (n + 1u) / 2u;
        if (lane / SPAN + half < n) {
            let other = sums[lane + half * SPAN];
            all = Sums(all.plain + other.plain, all.product + other.product);
        }
        n = half;
        workgroupBarrier();
    }
    return all;
}

// Number of parts that `rows` rows have: `chunks`, or where that is 0, one for each `rows_per_part` of them in each stack.
fn n_parts(rows: u32) -> u32 {
    let per_stack = (rows + extents.rows_per_part - 1u) / extents.rows_per_part;
    return select(extents.chunks, per_stack * extents.stacks, extents.chunks == 0u);
}

// Moments of channel c, of all parts in `partials`; the first of the SHARERS lanes gets them.
fn of_parts(lane: u32, c: u32) -> Moments {
    let channels = extents.channels;
    let rows = extents.rows + extents.rows_per_sample * step.n;
    var all = Moments(V(0.0), V(0.0), 0.0);
    if (c < channels) {
        for (var p = lane / SPAN; p < n_parts(rows); p += SHARERS) {
            let part = p * 3u * channels + c;
            let n_rows = total(partials[part + 2u * channels]) / f32(WIDTH);
            all = joined(all, Moments(partials[part], partials[part + channels], n_rows));
        }
    }
    return join_lanes(lane, all);
}
