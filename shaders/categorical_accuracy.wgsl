// y[r] = 1 where fewer than K of x[r, ·] stand before the one where the first largest of labels[r, ·] stands: larger
// ones (NaN is the largest), equal ones at its left. NaN and -infinity are no hits.
// Layout: x (rows, CLASSES), labels (rows, CLASSES), y (rows).
// Grid: one invocation per row. Constants: FIXED + PER_SAMPLE·n rows; CLASSES; K.
override FIXED: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override CLASSES: u32 = 1u;
override K: u32 = 1u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = (id.x + id.y * counts.x) * 64u + lane;
    if (row >= FIXED + PER_SAMPLE * step.n) { return; }
    var truth = rank(labels[row * CLASSES]);
    var label = 0u;
    for (var c = 1u; c < CLASSES; c = c + 1u) {
        let t = rank(labels[row * CLASSES + c]);
        if (t > truth) { truth = t; label = c; }
    }
    let own = rank(x[row * CLASSES + label]);
    var before = 0u;
    for (var c = 0u; c < CLASSES; c = c + 1u) {
        let v = rank(x[row * CLASSES + c]);
        before = before + select(0u, 1u, v > own || (v == own && c < label));
    }
    let hit = before < K && own > LOWEST && own <= -LOWEST;
    y[row] = epilogue(select(0.0, 1.0, hit), row);
}
