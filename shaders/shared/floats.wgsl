// Vectors stored as they are.
alias S = V;
fn unpack(s: S) -> V {
    return s;
}
fn pack(v: V) -> S {
    return v;
}
