// Two pixels of three bytes that stand beside each other from three words of four bytes.
@group(0) @binding(1) var<storage, read> x: array<u32>;
const WIDTH = 3u;

// Pixel (row, column) and the one after it.
fn pair(image: i32, row: i32, column: i32) -> array<vec3<f32>, 2> {
    let i = u32((max(image, 0) * H + row) * W + column) * 3u;
    let w = i >> 2u;
    // The word of the last byte wanted: nobody wants a pixel behind the last of a row.
    let end = (i + select(5u, 2u, column + 1 == W)) >> 2u;
    let middle = x[min(w + 1u, end)];
    let bits = (i & 3u) * 8u;
    // A shift by 32 bits is not defined.
    let low = (x[w] >> bits) | ((middle << (31u - bits)) << 1u);
    let high = (middle >> bits) | ((x[min(w + 2u, end)] << (31u - bits)) << 1u);
    let bytes = vec4<f32>((vec4<u32>(low) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u));
    let named = select(0.0, 1.0, image >= 0);
    return array<vec3<f32>, 2>(
        bytes.xyz * named,
        vec3<f32>(bytes.w, f32(high & 255u), f32((high >> 8u) & 255u)) * named,
    );
}

fn pixels(image: i32, row: i32, column: i32, c: u32) -> vec3<f32> {
    let in_bounds = row < H && column < W;
    return select(vec3<f32>(FILL), pair(image, select(0, row, in_bounds), select(0, column, in_bounds))[0], in_bounds);
}

fn beside(image: i32, row: i32, left: i32, right: i32, c: u32) -> array<vec3<f32>, 2> {
    if (MODE == 3u) {
        return array<vec3<f32>, 2>(pixels(image, row, left, c), pixels(image, row, right, c));
    }
    let first = min(min(left, right), W - 1);
    let two = pair(image, min(row, H - 1), first);
    let fill = vec3<f32>(FILL);
    return array<vec3<f32>, 2>(
        select(fill, select(two[0], two[1], left > first), row < H && left < W),
        select(fill, select(two[0], two[1], right > first), row < H && right < W),
    );
}
