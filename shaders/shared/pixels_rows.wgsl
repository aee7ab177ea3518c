// Images are rows of a table, named by numbers, or by floats where FLOATS; one outside the table's ROWS is zeros.
@group(0) @binding(4) var<storage, read> indices: array<u32>;
override ROWS: u32 = 1u;
override FLOATS: bool = false;

fn image_of(b: u32) -> i32 {
    let row = index_of(indices[b], ROWS, FLOATS);
    return select(-1, i32(row), row < ROWS);
}
