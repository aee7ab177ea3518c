// Gradient of the values of top_k: dx[r, c] = Σ dy[r, j] over the j with indices[r, j] = c, in ascending order.
// indices and dy: (rows, K), dx: (rows, COLUMNS) row-major; one invocation per element of dx.
// Elements of dx: ELEMENTS + PER_SAMPLE · n.
override ELEMENTS: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override COLUMNS: u32 = 1u;
override K: u32 = 1u;

@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= ELEMENTS + PER_SAMPLE * step.n) { return; }
    let row = i / COLUMNS;
    let c = i % COLUMNS;
    var sum = 0.0;
    for (var j = 0u; j < K; j++) {
        if (indices[row * K + j] == c) { sum += dy[row * K + j]; }
    }
    dx[i] = epilogue(sum, i);
}
