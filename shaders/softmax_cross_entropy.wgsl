// Cross-entropy of the softmax of logits (rows, C) with labels, and its gradient, in one launch. With m the largest
// logit of a row, s the sum of exp(x - m) and p = exp(x - m) / s:
// class labels k:   loss = log(s) - (x[k] - m),           dlogits[c] = p[c] - (c == k); k >= C: loss 0, dlogits 0
// A row with NaN, or without a finite largest logit, gives NaN throughout.
// dense labels t:   loss = T log(s) - sum t[c] (x[c] - m), dlogits[c] = p[c] T - t[c] with T = sum t[c]
// LABELS: 0 class indices of 32 bits, 1 class indices of 8 bits, 2 dense f32 (rows, C).
// GROUP: a workgroup does a row (LANES a power of 2), else a lane does a row. Grid: rows / LANES workgroups, with
// GROUP rows. Rows: ROWS + ROWS_PER_SAMPLE * n.
override ROWS: u32;
override ROWS_PER_SAMPLE: u32;
override C: u32;
override GROUP: bool;
override LABELS: u32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> dlogits: array<f32>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;
var<workgroup> shared_values: array<vec3<f32>, 256>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = id.x + id.y * counts.x;
    let row = select(group * LANES + lane, group, GROUP);
    let stride = select(1u, LANES, GROUP);
    let inside = row < ROWS + ROWS_PER_SAMPLE * step.n;
    let start = row * C;
    let end = select(start, start + C, inside);
    let first = start + select(0u, lane, GROUP);

    var m = bitcast<f32>(0xff800000u);
    for (var i = first; i < end; i += stride) {
        m = max_f32(m, x[i]);
    }
    if (GROUP) {
        shared_values[lane].x = m;
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if (lane < half) {
                shared_values[lane].x = max_f32(shared_values[lane].x, shared_values[lane + half].x);
            }
        }
        workgroupBarrier();
        m = shared_values[0].x;
        workgroupBarrier();
    }
    // Sum of exponentials, sum of dense labels, labels times logits.
    var sums = vec3<f32>(0.0);
    for (var i = first; i < end; i += stride) {
        let d = x[i] - m;
        sums.x += exp(d);
        if (LABELS == 2u) {
            let t = bitcast<f32>(labels[i]);
            sums.y += t;
            sums.z += t * d;
        }
    }
    if (GROUP) {
        shared_values[lane] = sums;
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if (lane < half) {
                shared_values[lane] += shared_values[lane + half];
            }
        }
        workgroupBarrier();
        sums = shared_values[0];
    }
    if (!inside) { return; }
    let scale = finite_or_nan_f32(m, 1.0 / max(sums.x, 1.0));
    let log_s = finite_or_nan_f32(m, log(max(sums.x, 1.0)));
    var loss = sums.y * log_s - sums.z;
    var hot = C;
    if (LABELS < 2u) {
        if (LABELS == 1u) {
            hot = (labels[row >> 2u] >> ((row & 3u) * 8u)) & 255u;
        } else {
            hot = labels[row];
        }
        sums.y = select(0.0, 1.0, hot < C);
        loss = select(0.0, log_s - (x[start + min(hot, C - 1u)] - m), hot < C);
    }
    for (var i = first; i < end; i += stride) {
        let p = exp(x[i] - m) * scale;
        if (LABELS == 2u) {
            dlogits[i] = epilogue(p * sums.y - bitcast<f32>(labels[i]), i);
        } else {
            dlogits[i] = epilogue(p * sums.y - select(0.0, 1.0, i - start == hot), i);
        }
    }
    if (!GROUP || lane == 0u) {
        losses[row] = finite_or_nan_f32(m, loss);
    }
}
