//! Networks from the literature, ready to build.

mod lenet5;

pub use lenet5::lenet5;
