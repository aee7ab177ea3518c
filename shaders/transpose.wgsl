// y[i] = x[BASE + Σ aₖ·Sₖ] where a₀…a₅ are the coordinates of i in the result's shape (…, E1, E2, E3, E4, E5).
// Layout: row-major words of any 32-bit type, or vectors of them as S; neighbouring axes that stay together are
// merged on the host. Strides may be negative: sums of u32 wrap.
// Grid: one invocation per element of the result.
// Constants: FIXED + PER_SAMPLE·n elements; extents E1…E5 of the result, strides S0…S5 and first element BASE in the operand.
override BASE: u32 = 0u;
override FIXED: u32 = 1u;
override PER_SAMPLE: u32 = 0u;
override E1: u32 = 1u;
override E2: u32 = 1u;
override E3: u32 = 1u;
override E4: u32 = 1u;
override E5: u32 = 1u;
override S0: u32 = 0u;
override S1: u32 = 0u;
override S2: u32 = 0u;
override S3: u32 = 0u;
override S4: u32 = 0u;
override S5: u32 = 0u;

@group(0) @binding(1) var<storage, read> x: array<S>;
@group(0) @binding(2) var<storage, read_write> y: array<S>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= FIXED + PER_SAMPLE * step.n) { return; }
    let a5 = i % E5;
    let i4 = i / E5;
    let a4 = i4 % E4;
    let i3 = i4 / E4;
    let a3 = i3 % E3;
    let i2 = i3 / E3;
    let a2 = i2 % E2;
    let i1 = i2 / E2;
    let a1 = i1 % E1;
    let a0 = i1 / E1;
    y[i] = x[BASE + a0 * S0 + a1 * S1 + a2 * S2 + a3 * S3 + a4 * S4 + a5 * S5];
}
