// What kernels share: the step record at binding 0, and functions; each kernel gets what it names. `zero` is 0, which
// no compiler knows: it may take 0.0 * x for 0 even where x is NaN or infinite.
// Grids are folded into two axes: the linear workgroup number is id.x + id.y * counts.x; counts.z is 1.
// No branch or loop is decided by uniform buffers alone: lavapipe of Mesa 22 takes their values for constants then,
// compiles the kernel anew at each launch, and keeps it for ever. `step.n * counts.z` is a number that no driver knows.
struct Step {
    n: u32,
    step: u32,
    seed: vec2<u32>,
    inv_n: f32,
    zero: f32,
    scalars: array<vec4<f32>, 4>,
}
@group(0) @binding(0) var<uniform> step: Step;

// Lanes of a workgroup, where the operation chooses.
override LANES: u32 = 64u;

// NaN by its bits: drivers may assume that no value is NaN.
fn is_nan_f32(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// y, or x where that is NaN: for functions whose y is made by comparing or by the driver's own function.
fn nan_or_f32(x: f32, y: f32) -> f32 {
    return select(y, x, is_nan_f32(x));
}

// y, or NaN where x is NaN or infinite.
fn finite_or_nan_f32(x: f32, y: f32) -> f32 {
    return select(y, bitcast<f32>(bitcast<u32>(x) | 0x7fc00000u), (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u);
}

// The larger of a and b, NaN where one of them is.
fn max_f32(a: f32, b: f32) -> f32 {
    return nan_or_f32(a, nan_or_f32(b, max(a, b)));
}

// The smaller of a and b, NaN where one of them is.
fn min_f32(a: f32, b: f32) -> f32 {
    return nan_or_f32(a, nan_or_f32(b, min(a, b)));
}

// Whether a and b are both numbers, so that comparing them tells something.
fn ordered_f32(a: f32, b: f32) -> bool {
    return max(bitcast<u32>(a) & 0x7fffffffu, bitcast<u32>(b) & 0x7fffffffu) <= 0x7f800000u;
}

// y, or NaN where x is NaN or below 0.
fn real_or_nan_f32(x: f32, y: f32) -> f32 {
    let bits = bitcast<u32>(x);
    return select(y, bitcast<f32>(bits | 0x7fc00000u), bits > 0x7f800000u && bits != 0x80000000u);
}

// Whether x is above 0; NaN is not.
fn positive_f32(x: f32) -> bool {
    return bitcast<u32>(x) - 1u < 0x7f800000u;
}

// max(x, 0): the bits of numbers below 0 are the lowest as whole numbers, those of NaN of either sign lie above.
fn relu_f32(x: f32) -> f32 {
    return select(x, 0.0, bitcast<i32>(x) <= -8388608);
}

// The row that an index names, a whole number or the bits of a float whose fraction is cut off; `rows` or more for one
// outside 0 ≤ index < rows (a negative whole number is large unsigned).
fn index_of(word: u32, rows: u32, floats: bool) -> u32 {
    let number = bitcast<f32>(word);
    return select(word, select(rows, u32(number), !is_nan_f32(number) && number > -1.0 && number < f32(rows)), floats);
}

// tanh with a relative error below 4e-6 everywhere: an odd series near 0, the clamped exponential elsewhere.
fn tanh_f32(x: f32) -> f32 {
    let s = x * x;
    let near = x * (1.0 + s * (-0.33333333 + s * (0.13333333 + s * (-0.053968254 + s * 0.021869488))));
    let e = exp(2.0 * clamp(x, -10.0, 10.0));
    return nan_or_f32(x, select((e - 1.0) / (e + 1.0), near, abs(x) < 0.25));
}

// log within 3 ulp where drivers are not: x = m * 2^e with m around 1, log m an odd series of (m - 1) / (m + 1), log 2 in
// two parts. What is no positive normal number is the driver's.
fn log_f32(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let e = bitcast<i32>(bits - 0x3f3504f3u) >> 23u;
    let m = bitcast<f32>(bits - (bitcast<u32>(e) << 23u));
    let s = (m - 1.0) / (m + 1.0);
    let t = s * s;
    let near = 2.0 * s + 2.0 * s * t * (0.33333333 + t * (0.2 + t * (0.14285714 + t * (0.11111111 + t * 0.09090909))));
    let far = f32(e) * 0.693359375 + (near - f32(e) * 0.00021219444);
    return real_or_nan_f32(x, select(log(x), far, bits >= 0x00800000u && bits < 0x7f800000u));
}

// sin with an absolute error below 2e-6 for some turns: x less a multiple of pi in two parts, then an odd series.
fn sin_f32(x: f32) -> f32 {
    let turns = round(x * 0.31830989);
    let r = (x - turns * 3.140625) - turns * 0.00096765359;
    let s = r * r;
    let sine = r * (1.0 + s * (-0.16666667 + s * (0.0083333333 + s * (-0.00019841270 + s * (2.7557319e-6 + s * -2.5052108e-8)))));
    return finite_or_nan_f32(x, select(sine, -sine, (i32(turns) & 1) == 1));
}

fn exp_f32(x: f32) -> f32 {
    return nan_or_f32(x, exp(x));
}

fn pow_f32(a: f32, b: f32) -> f32 {
    return nan_or_f32(b, real_or_nan_f32(a, pow(a, b)));
}

fn sigmoid_f32(x: f32) -> f32 {
    let y = 1.0 / (1.0 + exp(-clamp(x, -88.0, 88.0)));
    return nan_or_f32(x, select(y, 0.0, x < -88.0));
}

// e^x - 1 for x <= 0: a series near 0, where the difference would lose its digits.
fn expm1_f32(x: f32) -> f32 {
    let near = x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0 * (1.0 + x / 6.0 * (1.0 + x / 7.0 * (1.0 + x / 8.0)))))));
    return nan_or_f32(x, select(exp(x) - 1.0, near, x > -0.5));
}

// log(1 + e^x) = max(x, 0) + 2 atanh(u / (2 + u)), u = e^-|x|; the series of atanh ends where s < 1/3 needs no more.
fn softplus_f32(x: f32) -> f32 {
    let u = exp(-abs(x));
    let s = u / (2.0 + u);
    let q = s * s;
    return relu_f32(x) + 2.0 * s * (1.0 + q * (0.33333333 + q * (0.2 + q * (0.14285714 + q * (0.11111111 + q * (0.09090909 + q * 0.07692308))))));
}

// tanh(log(1 + e^x)) = (1 + 2u) / (1 + 2u + 2u^2) for x > 0, (u^2 + 2u) / (u^2 + 2u + 2) else, u = e^-|x|.
fn tanh_softplus_f32(x: f32) -> f32 {
    let u = exp(-abs(x));
    let a = select(u * (u + 2.0), 1.0 + 2.0 * u, x > 0.0);
    return a / (a + select(2.0, 2.0 * u * u, x > 0.0));
}

// erf with an absolute error below 5e-7: an odd series where |x| < 1, elsewhere Abramowitz and Stegun 7.1.26.
fn erf_f32(x: f32) -> f32 {
    let s = x * x;
    let near = x * (1.1283791 + s * (-0.37612349 + s * (0.11280365 + s * (-0.026716385 + s * (0.0049232775 + s * -0.00056541059)))));
    let a = min(abs(x), 6.0);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let p = t * (0.25482959 + t * (-0.28449674 + t * (1.4214137 + t * (-1.453152 + t * 1.0614054))));
    return nan_or_f32(x, select(sign(x) * (1.0 - p * exp(-a * a)), near, abs(x) < 1.0));
}

// Floats as whole numbers in their order, over the vectors V of a kernel.

// The larger of a and b, NaN where one of them is.
fn larger(a: V, b: V) -> V {
    let bits = max(bitcast<U>(a) & U(0x7fffffffu), bitcast<U>(b) & U(0x7fffffffu));
    return select(max(a, b), bitcast<V>(bits), bits > U(0x7f800000u));
}

// y, or NaN where x is NaN or infinite.
fn finite_or_nan(x: V, y: V) -> V {
    let bits = bitcast<U>(x);
    return select(y, bitcast<V>(bits | U(0x7fc00000u)), (bits & U(0x7f800000u)) == U(0x7f800000u));
}

// A whole number for each float, in their order: both zeros are 0, NaN is the largest whatever its sign.
fn rank(v: V) -> I {
    let size = I(min(bitcast<U>(v) & U(0x7fffffffu), U(0x7f800001u)));
    return select(size, -size, bitcast<I>(v) <= I(-8388608));
}

// The float of a rank.
fn of_rank(r: I) -> V {
    return bitcast<V>(select(r, -r | I(-2147483647 - 1), r < I(0)));
}

// The rank below which there is none: that of -infinity.
const LOWEST = -2139095040;

// High and low word of a * b.
fn mul_wide(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let cross_a = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let cross_b = (a & 0xffffu) * (b >> 16u) + (cross_a & 0xffffu);
    return vec2<u32>((a >> 16u) * (b >> 16u) + (cross_a >> 16u) + (cross_b >> 16u), a * b);
}

// Philox 4x32-10 (Salmon et al. 2011).
fn philox(counter: vec4<u32>, first_key: vec2<u32>) -> vec4<u32> {
    var v = counter;
    var key = first_key;
    for (var round = 0u; round < 10u; round++) {
        let a = mul_wide(v.x, 0xd2511f53u);
        let b = mul_wide(v.z, 0xcd9e8d57u);
        v = vec4<u32>(b.x ^ v.y ^ key.x, b.y, a.x ^ v.w ^ key.y, a.y);
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return v;
}

// Floats as 64-bit words, and back.
fn floats2(word: u64) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(u32(word), u32(word >> 32u)));
}
fn floats4(words: vec2<u64>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(u32(words.x), u32(words.x >> 32u), u32(words.y), u32(words.y >> 32u)));
}
fn words2(v: vec2<f32>) -> u64 {
    let bits = bitcast<vec2<u32>>(v);
    return u64(bits.x) | (u64(bits.y) << 32u);
}
fn words4(v: vec4<f32>) -> vec2<u64> {
    let bits = bitcast<vec4<u32>>(v);
    return vec2<u64>(u64(bits.x) | (u64(bits.y) << 32u), u64(bits.z) | (u64(bits.w) << 32u));
}

// i divided by an extent, for i below 2^31, by its magic numbers.
fn quotient(i: u32, magic: u32, shift: u32) -> u32 {
    return u32((u64(i) * u64(magic)) >> 32u) >> shift;
}
