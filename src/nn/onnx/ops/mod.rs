//! The operators, a file for each family: what they are in terms of the graph's operations.

mod activation;
mod boxes;
mod conv;
mod elementwise;
mod grid_sample;
pub mod known;
mod matmul;
mod norm;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod select;
mod shape;
mod steps;
mod volume;
mod window;

use super::call::Build;

/// The operators by family.
const FAMILIES: [&[(&str, Build)]; 14] = [
    activation::OPERATORS,
    boxes::OPERATORS,
    elementwise::OPERATORS,
    grid_sample::OPERATORS,
    matmul::OPERATORS,
    norm::OPERATORS,
    pool::OPERATORS,
    quantize::OPERATORS,
    recurrent::OPERATORS,
    reduce::OPERATORS,
    resize::OPERATORS,
    select::OPERATORS,
    shape::OPERATORS,
    volume::OPERATORS,
];

/// Returns an operator's name and how it is built.
pub fn find(op: &str) -> Option<(&'static str, Build)> {
    FAMILIES.iter().flat_map(|family| family.iter()).find(|(name, _)| *name == op).copied()
}

/// Returns the names of all operators.
pub fn names() -> impl Iterator<Item = &'static str> {
    let known = known::OPERATORS.iter().map(|(name, _)| *name);
    FAMILIES.iter().flat_map(|family| family.iter().map(|(name, _)| *name)).chain(known)
}
