//! Words of types: in registers and workgroup memory without gaps, in buffers as WGSL lays them out.

use naga::{AddressSpace, ArraySize, Handle, Module, Scalar, ScalarKind, Type, TypeInner, VectorSize};

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Float,
    Signed,
    Unsigned,
    Bool,
    /// 64 bits without sign: two words, the low one first.
    Wide,
}

impl Class {
    pub fn of(scalar: Scalar) -> Option<Class> {
        match (scalar.kind, scalar.width) {
            (ScalarKind::Float, 4) => Some(Class::Float),
            (ScalarKind::Sint, 4) => Some(Class::Signed),
            (ScalarKind::Uint, 4) => Some(Class::Unsigned),
            (ScalarKind::Uint, 8) => Some(Class::Wide),
            (ScalarKind::Bool, _) => Some(Class::Bool),
            _ => None,
        }
    }

    pub fn words(self) -> u32 {
        if self == Class::Wide { 2 } else { 1 }
    }
}

/// Returns whether WGSL says how variables of a space lie.
pub(super) fn is_buffer(space: AddressSpace) -> bool {
    matches!(space, AddressSpace::Uniform | AddressSpace::Storage { .. })
}

/// Returns the class of a scalar or vector, and the number of its components.
pub(super) fn components(ty: &TypeInner) -> Option<(Class, u32)> {
    match *ty {
        TypeInner::Scalar(scalar) => Some((Class::of(scalar)?, 1)),
        TypeInner::Vector { size, scalar } => Some((Class::of(scalar)?, size as u32)),
        _ => None,
    }
}

/// Returns where the words of a type lie, from its first on; none where the twin does not know it.
pub(super) fn words(module: &Module, ty: &TypeInner, buffer: bool) -> Option<Vec<u32>> {
    match ty {
        TypeInner::Scalar(_) | TypeInner::Vector { .. } => {
            let (class, n) = components(ty)?;
            Some((0..n * class.words()).collect())
        }
        TypeInner::Array { base, size: ArraySize::Constant(n), .. } => {
            let element = words(module, &module.types[*base].inner, buffer)?;
            let stride = stride(module, ty, buffer)?;
            Some((0..n.get()).flat_map(|i| element.iter().map(move |w| w + i * stride)).collect())
        }
        TypeInner::Struct { members, .. } => {
            let mut all = Vec::new();
            for (i, member) in members.iter().enumerate() {
                let first = offset(module, ty, i, buffer)?;
                all.extend(words(module, &module.types[member.ty].inner, buffer)?.iter().map(|w| w + first));
            }
            Some(all)
        }
        _ => None,
    }
}

/// Returns the words from one element of an array or vector to the next.
pub(super) fn stride(module: &Module, ty: &TypeInner, buffer: bool) -> Option<u32> {
    match *ty {
        TypeInner::Vector { scalar, .. } => Some(Class::of(scalar)?.words()),
        TypeInner::Array { stride, .. } if buffer => stride.is_multiple_of(4).then_some(stride / 4),
        TypeInner::Array { base, .. } => Some(words(module, &module.types[base].inner, false)?.len() as u32),
        _ => None,
    }
}

/// Returns the first word of a struct's member.
pub(super) fn offset(module: &Module, ty: &TypeInner, member: usize, buffer: bool) -> Option<u32> {
    let TypeInner::Struct { members, .. } = ty else { return None };
    if buffer {
        return Some(members.get(member)?.offset / 4);
    }
    let before = members.get(..member)?.iter().map(|m| words(module, &module.types[m.ty].inner, false));
    before.map(|w| Some(w?.len() as u32)).sum()
}

/// Returns the type of an element, component or member.
pub(super) fn part(module: &Module, ty: &TypeInner, index: usize) -> Option<TypeInner> {
    let of = |handle: Handle<Type>| module.types[handle].inner.clone();
    match ty {
        TypeInner::Vector { scalar, .. } => Some(TypeInner::Scalar(*scalar)),
        TypeInner::Array { base, .. } => Some(of(*base)),
        TypeInner::Struct { members, .. } => Some(of(members.get(index)?.ty)),
        _ => None,
    }
}

/// Returns the type that a pointer leads to.
pub(super) fn pointee(module: &Module, ty: &TypeInner) -> Option<TypeInner> {
    match *ty {
        TypeInner::Pointer { base, .. } => Some(module.types[base].inner.clone()),
        TypeInner::ValuePointer { size: Some(size), scalar, .. } => Some(TypeInner::Vector { size, scalar }),
        TypeInner::ValuePointer { size: None, scalar, .. } => Some(TypeInner::Scalar(scalar)),
        _ => None,
    }
}

/// Returns the number of components of a vector's size.
pub(super) fn size(size: VectorSize) -> usize {
    size as usize
}
