//! Runs plans on a device through wgpu. No other folder names wgpu or may be `unsafe`.
//!
//! **In**: a [`Plan`](crate::passes::Plan), [`Store`]s with its weights and other states, and for each step the inputs: as bytes
//! from the host ([`Session::run`]), or as buffers of the application in its own encoder ([`Session::record`]).
//!
//! **Out**: outputs read back to the host, or left in the application's buffers; times of launches ([`Session::profile`]).
//!
//! - `engine.rs`: [`Engine`] chooses an adapter and opens its device, or borrows the application's. [`Engine::reference`] has none.
//! - `gpu.rs`: the device with its memory budget; every call to wgpu that can fail goes through an error scope there.
//! - `pipeline.rs`: compiled kernels, shared by all sessions of an engine.
//! - `store.rs`: named tensors that are kept from step to step. `session/arena.rs`: memory that is reused within a step.
//! - `profile/`: the times of a step's launches, as a table and as a trace.
//! - `session/`: a plan with its memory, pipelines and bind groups; `ring.rs` stages inputs, `readback.rs` reads outputs.
//!
//! Invariants:
//! - nothing is created on the device after the first step with the same buffers;
//! - every wait has a timeout, and every error names its buffer, kernel or step;
//! - a lost device is [`RuntimeError::DeviceLost`] from every call that follows, never a panic.
//!
//! Where to start: [`Engine::session`], then `run` in `session/run.rs`.

mod engine;
mod error;
mod gpu;
mod multiprocessors;
mod pipeline;
mod profile;
mod readback;
mod ring;
mod session;
mod store;

pub use engine::{AdapterInfo, Backend, Engine, EngineBuilder, Required};
pub use error::RuntimeError;
pub use profile::{Clock, HostSpan, LayerTime, Limits, Profile, Purpose, Timing};
pub use session::{Arena, External, Session};
pub use store::Store;

type Result<T> = std::result::Result<T, RuntimeError>;
