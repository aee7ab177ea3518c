// Vectors of 4 stored as 64-bit words.
alias S = vec2<u64>;
fn unpack(s: S) -> V {
    return floats4(s);
}
fn pack(v: V) -> S {
    return words4(v);
}
