// rows[s, c, k] = (s, c, i) of the k-th box of class c that sample s keeps, (-1, -1, -1) where it keeps fewer: again and again the box of
// the highest score above LEAST, a rank, is kept, and those whose intersection with it is more than IOU of the union are closed.
// boxes: (samples, BOXES, 4) as two corners, or with CENTER as centre and size; scores: (samples, CLASSES, BOXES);
// rows: (samples, CLASSES * K, 3) row-major. A workgroup for each sample and class: a lane has every LANES-th box, and their bits in
// words of its own, of which there are WORDS. Samples: SAMPLES + PER_SAMPLE * n.
override SAMPLES: u32;
override PER_SAMPLE: u32;
override CLASSES: u32;
override BOXES: u32;
override K: u32;
override LEAST: i32;
override IOU: f32;
override CENTER: bool;
const NONE = vec2<i32>(LOWEST - 1, -1);
@group(0) @binding(1) var<storage, read> boxes: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> scores: array<f32>;
@group(0) @binding(3) var<storage, read_write> rows: array<f32>;
var<workgroup> closed: array<u32, WORDS>;
var<workgroup> tops: array<vec2<i32>, 64>;

// Low and high corner of a box; of one with a number beyond 2^60, whose area might be infinite, a point.
fn corners(i: u32) -> vec4<f32> {
    let v = boxes[i];
    if (any((bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x5d800000u))) { return vec4<f32>(0.0); }
    if (CENTER) { return vec4<f32>(v.xy - v.zw * 0.5, v.xy + v.zw * 0.5); }
    return vec4<f32>(min(v.xy, v.zw), max(v.xy, v.zw));
}

fn area(box: vec4<f32>) -> f32 {
    return max(box.z - box.x, 0.0) * max(box.w - box.y, 0.0);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = id.x + id.y * counts.x;
    let inside = group < (SAMPLES + PER_SAMPLE * step.n) * CLASSES;
    let first = group / CLASSES * BOXES;
    for (var w = lane; w < WORDS; w += LANES) { closed[w] = 0u; }
    var kept = vec4<f32>(0.0);
    var kept_at = -1;
    var more = inside;
    for (var k = 0u; k < K; k++) {
        var top = NONE;
        for (var i = lane; i < select(0u, BOXES, more); i += LANES) {
            let word = i / (LANES * 32u) * LANES + lane;
            let bit = 1u << (i / LANES % 32u);
            if ((closed[word] & bit) != 0u) { continue; }
            let box = corners(first + i);
            let inner = area(vec4<f32>(max(box.xy, kept.xy), min(box.zw, kept.zw)));
            let close = inner > IOU * (area(box) + area(kept) - inner);
            let score = rank(scores[group * BOXES + i]);
            if (close || i32(i) == kept_at) {
                closed[word] |= bit;
            } else if (score > max(LEAST, top.x) && score <= -LOWEST) {
                top = vec2<i32>(score, i32(i));
            }
        }
        tops[lane] = top;
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if (lane < half) {
                let other = tops[lane + half];
                if (other.x > top.x || (other.x == top.x && other.y < top.y)) { top = other; }
                tops[lane] = top;
            }
        }
        workgroupBarrier();
        top = tops[0];
        workgroupBarrier();
        more = more && top.y >= 0;
        if (more) {
            kept = corners(first + u32(top.y));
            kept_at = top.y;
        }
        if (inside && lane < 3u) {
            let row = vec3<i32>(i32(group / CLASSES), i32(group % CLASSES), kept_at);
            rows[(group * K + k) * 3u + lane] = select(-1.0, f32(row[lane]), more);
        }
    }
}
