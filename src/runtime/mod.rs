//! Runs plans on a device through wgpu; the only folder that names it.

mod engine;
mod error;
mod gpu;
mod pipeline;
mod readback;
mod ring;
mod session;
mod store;

pub use engine::{AdapterInfo, Backend, Engine, EngineBuilder, Required};
pub use error::RuntimeError;
pub use session::{Arena, External, Session, Timing};
pub use store::Store;

type Result<T> = std::result::Result<T, RuntimeError>;
