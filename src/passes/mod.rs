//! Graph to plan: pure data, testable without a device.

mod plan_types;

pub use plan_types::{Binding, BufferRef, Entry, Layout, Place, Plan, PlannedDispatch, Port};
