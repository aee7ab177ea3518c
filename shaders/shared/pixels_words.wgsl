// All three channels of a pixel from two words of two floats; an image has an even number of pixels.
@group(0) @binding(1) var<storage, read> x: array<u64>;
const WIDTH = 3u;

fn pixels(image: i32, row: i32, column: i32, c: u32) -> vec3<f32> {
    let in_bounds = row < H && column < W;
    let i = u32(select(0, (max(image, 0) * H + row) * W + column, in_bounds)) * 3u;
    let a = floats2(x[i >> 1u]);
    let b = floats2(x[(i >> 1u) + 1u]);
    let value = select(vec3<f32>(a, b.x), vec3<f32>(a.y, b), (i & 1u) == 1u);
    return select(vec3<f32>(FILL), select(vec3<f32>(0.0), value, image >= 0), in_bounds);
}
