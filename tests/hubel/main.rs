//! All integration tests in one binary.

mod augmentation;
mod crashes;
mod errors;
mod functional;
mod fusion;
mod golden;
mod gradients;
mod harness;
mod inspect;
mod kernels;
mod layers;
mod long_sums;
mod models;
mod networks;
mod operations;
mod optimizers;
mod passes;
mod plans;
mod promises;
mod shared_tiles;
mod structure;
mod training;
mod watching;
mod worked_examples;
mod workflow;
mod zoo;
