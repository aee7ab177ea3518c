use naga::{AddressSpace, StorageAccess};

/// How a kernel reaches a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Uniform buffer.
    Uniform,
    /// Storage buffer, read only.
    Read,
    /// Storage buffer, read and written.
    ReadWrite,
}

/// One binding of a kernel's group 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BindingInfo {
    /// Number of the binding.
    pub binding: u32,
    /// How it is reached.
    pub access: Access,
}

/// WGSL that naga refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel}: {reason}")]
pub struct ReflectError {
    /// The kernel's name.
    pub kernel: String,
    /// What naga says, with the place.
    pub reason: String,
}

/// Returns the bindings that a kernel declares, in order, and the parsed module.
pub fn reflect(kernel: &str, source: &str) -> Result<(Vec<BindingInfo>, naga::Module), ReflectError> {
    let error = |reason: String| ReflectError { kernel: kernel.to_owned(), reason };
    let module = naga::front::wgsl::parse_str(source).map_err(|e| error(e.emit_to_string(source)))?;
    let mut bindings = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(place) = &variable.binding else { continue };
        let access = match variable.space {
            AddressSpace::Uniform => Access::Uniform,
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => Access::ReadWrite,
            AddressSpace::Storage { .. } => Access::Read,
            _ => return Err(error(format!("binding {} is no buffer", place.binding))),
        };
        bindings.push(BindingInfo { binding: place.binding, access });
    }
    bindings.sort_by_key(|b| b.binding);
    match bindings.iter().enumerate().find(|(i, b)| b.binding != *i as u32) {
        None => Ok((bindings, module)),
        Some((i, _)) => Err(error(format!("binding {i} is missing: bindings are numbered 0, 1, 2, … without gaps"))),
    }
}
