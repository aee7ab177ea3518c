// Gradient of padding by reflection (MODE 1) or by the edge (MODE 2): dx[b, i, j, c] is the sum of dy over the cells
// that show x[b, i, j, c], rows first, in ascending order of `cell`.
// dx: (N·, H, W, C), dy: (N·, H + TOP + BOTTOM, W + LEFT + RIGHT, C), row-major, V is a vector of WIDTH channels,
// C counts V; one invocation per V of dx, folded grid. V of dx: ELEMENTS + PER_SAMPLE · n.
@group(0) @binding(1) var<storage, read> dy: array<S>;
@group(0) @binding(2) var<storage, read_write> dx: array<S>;

override ELEMENTS: u32 = 0u;
override PER_SAMPLE: u32 = 1u;
override H: i32 = 1;
override W: i32 = 1;
override C: u32 = 1u;
override TOP: i32 = 0;
override BOTTOM: i32 = 0;
override LEFT: i32 = 0;
override RIGHT: i32 = 0;
override MODE: u32 = 1u;

// How many cells may show element r of n.
fn cells(r: i32, n: i32, before: i32, after: i32) -> i32 {
    if (MODE == 1u) { return 3; }
    return 1 + select(0, before, r == 0) + select(0, after, r == n - 1);
}

// The k-th of them, or -1: itself and its mirror images, or all that the edge fills.
fn cell(r: i32, k: i32, n: i32, before: i32, after: i32) -> i32 {
    if (MODE == 2u) { return select(before + r, 0, r == 0) + k; }
    if (k == 0) { return select(-1, before - r, r >= 1 && r <= before); }
    if (k == 1) { return before + r; }
    return select(-1, before + 2 * (n - 1) - r, r <= n - 2 && n - 1 - r <= after);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) counts: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= ELEMENTS + PER_SAMPLE * step.n) {
        return;
    }
    let c = i % C;
    let at = i32(i / C);
    let column = at % W;
    let row = at / W % H;
    let image = at / (W * H);
    var sum = V(0.0);
    let rows = cells(row, H, TOP, BOTTOM);
    let columns = cells(column, W, LEFT, RIGHT);
    for (var k = 0; k < rows; k++) {
        let p = cell(row, k, H, TOP, BOTTOM);
        if (p < 0) { continue; }
        let line = (image * (H + TOP + BOTTOM) + p) * (W + LEFT + RIGHT);
        for (var l = 0; l < columns; l++) {
            let q = cell(column, l, W, LEFT, RIGHT);
            if (q < 0) { continue; }
            sum += unpack(dy[u32(line + q) * C + c]);
        }
    }
    dx[i] = pack(epilogue(sum, i * WIDTH));
}
