// Softmax over the last axis: y[r, c] = exp(x[r, c] - m) / s with m the largest value of row r and s the sum of
// exp(x[r, c] - m); with LOG x[r, c] - m - log(s). A row with NaN, or
// without a finite largest value, is NaN throughout. (rows, C) with V a vector of WIDTH neighbours,
// stored as S; C counts V. GROUP: a workgroup does a row and its lanes take every LANES-th value (LANES is a power of 2); else a
// lane does a row. Grid: rows / LANES workgroups, with GROUP rows. Rows: ROWS + ROWS_PER_SAMPLE * n.
override ROWS: u32;
override ROWS_PER_SAMPLE: u32;
override C: u32;
override GROUP: bool;
override LOG: bool;
@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read_write> y: array<S>;
var<workgroup> shared_values: array<f32, 256>;


@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = id.x + id.y * counts.x;
    let row = select(group * LANES + lane, group, GROUP);
    let stride = select(1u, LANES, GROUP);
    let inside = row < ROWS + ROWS_PER_SAMPLE * step.n;
    let start = row * C;
    let end = select(start, start + C, inside);
    let first = start + select(0u, lane, GROUP);

    var most = of_rank(I(LOWEST));
    var bits = U(0u);
    for (var i = first; i < end; i += stride) {
        let value = unpack(x[i]);
        most = max(most, value);
        bits = max(bits, bitcast<U>(value) & U(0x7fffffffu));
    }
    var m = largest(select(most, bitcast<V>(bits), bits > U(0x7f800000u)));
    if (GROUP) {
        shared_values[lane] = m;
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if (lane < half) {
                shared_values[lane] = max_f32(shared_values[lane], shared_values[lane + half]);
            }
        }
        workgroupBarrier();
        m = shared_values[0];
        workgroupBarrier();
    }
    var sum = V(0.0);
    for (var i = first; i < end; i += stride) {
        sum += exp(unpack(x[i]) - V(m));
    }
    var s = total(sum);
    if (GROUP) {
        shared_values[lane] = s;
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if (lane < half) {
                shared_values[lane] += shared_values[lane + half];
            }
        }
        workgroupBarrier();
        s = shared_values[0];
    }
    if (LOG) {
        let log_s = finite_or_nan_f32(m, log(max(s, 1.0)));
        for (var i = first; i < end; i += stride) {
            y[i] = pack(epilogue((unpack(x[i]) - V(m)) - V(log_s), i * WIDTH));
        }
    } else {
        let scale = finite_or_nan_f32(m, 1.0 / max(s, 1.0));
        for (var i = first; i < end; i += stride) {
            y[i] = pack(epilogue(exp(unpack(x[i]) - V(m)) * scale, i * WIDTH));
        }
    }
}
