// Vectors of 2 stored as 64-bit words.
alias S = u64;
fn unpack(s: S) -> V {
    return floats2(s);
}
fn pack(v: V) -> S {
    return words2(v);
}
