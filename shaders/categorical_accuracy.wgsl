// y[r] = 1 where the first largest of x[r, ·] stands where the first largest of labels[r, ·] stands, else 0.
// Layout: x (rows, CLASSES), labels (rows, CLASSES), y (rows).
// Grid: one invocation per row. Constants: FIXED + PER_SAMPLE·n rows; CLASSES.
override FIXED: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override CLASSES: u32 = 1u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = (id.x + id.y * counts.x) * 64u + lane;
    if (row >= FIXED + PER_SAMPLE * step.n) { return; }
    var best = x[row * CLASSES];
    var at = 0u;
    var truth = labels[row * CLASSES];
    var label = 0u;
    for (var c = 1u; c < CLASSES; c = c + 1u) {
        let v = x[row * CLASSES + c];
        if (v > best) { best = v; at = c; }
        let t = labels[row * CLASSES + c];
        if (t > truth) { truth = t; label = c; }
    }
    y[row] = epilogue(select(0.0, 1.0, at == label), row);
}
