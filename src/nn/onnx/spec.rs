//! What a node of a file is besides its operands.

use crate::io::onnx::messages::AttributeProto;
use std::fmt;

/// What a node is besides its operands.
#[derive(Clone)]
pub struct Spec {
    pub op: &'static str,
    pub name: String,
    pub attributes: Vec<AttributeProto>,
    /// The version of the operators.
    pub opset: i64,
    /// Which results are used.
    pub outputs: Vec<bool>,
}

impl Spec {
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attributes.iter().find(|a| a.name == name)
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |a| a.f)
    }

    pub fn text(&self, name: &str, default: &str) -> String {
        self.attribute(name).map_or(default.to_owned(), |a| String::from_utf8_lossy(&a.s).into_owned())
    }

    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| &a.ints[..])
    }

    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        self.attribute(name).map(|a| &a.floats[..])
    }

    pub fn texts(&self, name: &str) -> Vec<String> {
        let texts = self.attribute(name).map(|a| &a.strings[..]).unwrap_or_default();
        texts.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.op, self.name)
    }
}
