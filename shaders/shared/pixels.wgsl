// Pixels of H x W images for affine2d, FILL outside and zeros where `image` is -1: x is read as words, a float or, with BYTES,
// four bytes each.
@group(0) @binding(1) var<storage, read> x: array<u32>;
override BYTES: bool = false;

fn pixels(image: i32, row: i32, column: i32, c: u32) -> vec3<f32> {
    let in_bounds = row < H && column < W;
    let i = u32(select(0, (max(image, 0) * H + row) * W + column, in_bounds)) * C + c;
    var value = 0.0;
    if (BYTES) {
        value = f32((x[i >> 2u] >> ((i & 3u) * 8u)) & 255u);
    } else {
        value = bitcast<f32>(x[i]);
    }
    return vec3<f32>(select(FILL, select(0.0, value, image >= 0), in_bounds), 0.0, 0.0);
}

// Two pixels of a row.
fn beside(image: i32, row: i32, left: i32, right: i32, c: u32) -> array<vec3<f32>, 2> {
    return array<vec3<f32>, 2>(pixels(image, row, left, c), pixels(image, row, right, c));
}

// The image that image b of the result is made of.
fn image_of(b: u32) -> i32 {
    return i32(b);
}
