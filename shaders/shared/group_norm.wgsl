// Groups of P pixels and C of G * C channels, C counting V: COUNT numbers each, GROUPS + GROUPS_PER_SAMPLE * n of them.
// T of a workgroup's LANES share a group: they take every PSTEP-th pixel and every CSTEP-th V.
override T: u32;
override GROUPS: u32;
override GROUPS_PER_SAMPLE: u32;
override P: u32;
override G: u32;
override C: u32;
override PSTEP: u32;
override CSTEP: u32;
override COUNT: f32;
override EPSILON: f32;
var<workgroup> parts: array<vec2<f32>, 256>;

// The sums of what a group's lanes have, in the order of the lanes.
fn of_group(own: vec2<f32>, lane: u32) -> vec2<f32> {
    if (T == 1u) { return own; }
    parts[lane] = own;
    workgroupBarrier();
    var all = vec2<f32>(0.0);
    for (var k = 0u; k < T; k++) { all += parts[lane - lane % T + k]; }
    return all;
}
