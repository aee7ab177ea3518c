// Batch statistics, second launch: the partials of batch_norm_statistics merged in order (Chan et al. 1979) into
// mean and biased variance (both NaN in a channel that holds a number that is not finite), and what the third launch needs: coefficients (3, C) = mean, gamma / sqrt(var + EPSILON), beta.
// V = f32, or vec4<f32> where C is a multiple of 4; C counts V. S lanes share a channel and merge every S-th chunk;
// with S > 1 they are merged in order by the first. T partials a chunk, one with GATHER (see batch_norm_statistics).
// Grid: ceil(C / SPAN) workgroups of LANES = SPAN * S.
override LANES: u32 = 64u;
override ROWS: u32;
override ROWS_PER_SAMPLE: u32;
override C: u32;
override SPAN: u32;
override S: u32;
override T: u32;
override GROUPS: u32;
override GATHER: bool;
override EPSILON: f32;
@group(0) @binding(1) var<storage, read> partials: array<V>;
@group(0) @binding(2) var<storage, read> gamma: array<V>;
@group(0) @binding(3) var<storage, read> beta: array<V>;
@group(0) @binding(4) var<storage, read_write> mean_out: array<V>;
@group(0) @binding(5) var<storage, read_write> variance_out: array<V>;
@group(0) @binding(6) var<storage, read_write> coefficients: array<V>;
var<workgroup> means: array<V, 64>;
var<workgroup> deviations: array<V, 64>;
var<workgroup> totals: array<f32, 64>;

// Number of rows of partial p, of `rows` in all.
fn count(p: u32, rows: u32) -> u32 {
    let chunk = (rows + GROUPS - 1u) / GROUPS;
    let g = select(p / T, p, GATHER);
    let t = select(p % T, 0u, GATHER);
    let stride = select(T, 1u, GATHER);
    let start = min(g * chunk, rows) + t;
    let end = min((g + 1u) * chunk, rows);
    return select(0u, (max(end, start) - start + stride - 1u) / stride, start < end);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = (id.x + id.y * counts.x) * SPAN + lane % SPAN;
    let rows = ROWS + ROWS_PER_SAMPLE * step.n;
    var mean = V(0.0);
    var deviation = V(0.0);
    var total = 0.0;
    if (c < C) {
        for (var p = lane / SPAN; p < select(GROUPS * T, GROUPS, GATHER); p += S) {
            let more = f32(count(p, rows));
            if (more > 0.0) {
                let delta = partials[(p * 2u) * C + c] - mean;
                let part = more / (total + more);
                deviation += partials[(p * 2u + 1u) * C + c] + delta * delta * (total * part);
                mean += delta * part;
                total += more;
            }
        }
    }
    if (S > 1u) {
        means[lane] = mean;
        deviations[lane] = deviation;
        totals[lane] = total;
        workgroupBarrier();
        if (lane < SPAN) {
            for (var s = 1u; s < S; s++) {
                let other = lane + s * SPAN;
                let more = totals[other];
                if (more > 0.0) {
                    let delta = means[other] - mean;
                    let part = more / (total + more);
                    deviation += deviations[other] + delta * delta * (total * part);
                    mean += delta * part;
                    total += more;
                }
            }
        }
    }
    if (lane < SPAN && c < C) {
        let variance = finite_or_nan(deviation, deviation / max(total, 1.0));
        mean = finite_or_nan(deviation, mean);
        mean_out[c] = mean;
        variance_out[c] = variance;
        coefficients[c] = mean;
        coefficients[C + c] = gamma[c] * inverseSqrt(variance + EPSILON);
        coefficients[2u * C + c] = beta[c];
    }
}
