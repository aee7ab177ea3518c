//! The test kit of the crate's own operations, for operations of other crates too (feature `testing`).
//!
//! Unstable: the test kit for operations.
//!
//! [`check_family`] takes an operation's [`Family`] and compares its kernels with its reference between guards and its gradients with
//! central differences, and checks that faults [derived](mutate) from its kernels are noticed and bad cases refused. The crate's tests call these checks one by one.
//!
//! A [`Failure`] names the sample, output and element, with the error. [`Run`] has the options of a run: guards, asserted indices, a fault,
//! another variant.

mod branches;
mod case;
mod checks;
mod indices;
pub mod mutate;
mod run;
mod special;
pub mod twin;

pub use branches::decided_by_uniforms;
pub use checks::{
    bad_cases_are_refused, bits, branches_are_not_decided_by_uniforms, check_case, check_family, faults_are_noticed,
    gpu_gradients_agree, gradients_agree, indices_are_inside, kernels_agree, keys_are_equal_where_operations_are,
};
pub use run::{Run, check_sample, plan_for, reference, run_graph, sample_graph, sample_inputs, step_of};
pub use special::{special_values_agree, special_values_agree_on};

use crate::{
    graph::{DeviceClass, DeviceProfile, Family},
    runtime::Engine,
};

/// Returns the profiles that kernels are written for: a processor, a GPU, and a processor whose subgroups have 8 lanes.
pub fn profiles() -> [DeviceProfile; 3] {
    let [cpu, gpu] = [DeviceClass::Cpu, DeviceClass::Gpu].map(DeviceProfile::portable);
    let lanes = DeviceProfile { subgroup_lanes: 8, u64_loads: true, ..cpu.clone() };
    [cpu, gpu, lanes]
}

/// Refuses the buffer number `n` that is created on the engine's device from now on, from 0, as a driver out of memory
/// would; `None` refuses none. Returns whether an earlier refusal was still pending.
pub fn refuse_buffer(engine: &Engine, n: Option<u64>) -> bool {
    engine.refuse_buffer(n)
}

/// A difference between an operation and its statement.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

macro_rules! from {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure(error.to_string())
            }
        })+
    };
}
from!(crate::graph::OpError, crate::passes::PlanError, crate::runtime::RuntimeError);

fn of(family: &Family, failure: Failure) -> Failure {
    Failure(format!("{}: {failure}", family.name))
}
