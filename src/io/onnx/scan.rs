//! A walk over a file's bytes before they are decoded: it draws what the messages will take, and ends at the first fault.

use super::messages::*;
use crate::io::{Budget, Flaw, FormatError, Reader};

/// A message, and which of its fields are messages.
struct Schema {
    name: &'static str,
    bytes: usize,
    fields: &'static [(u64, &'static Schema)],
}

/// How deep messages nest: a graph in an attribute is three levels.
const MAX_DEPTH: usize = 24;

const fn schema<T>(name: &'static str, fields: &'static [(u64, &'static Schema)]) -> Schema {
    Schema { name, bytes: size_of::<T>(), fields }
}

static ENTRY: Schema = schema::<Entry>("an entry", &[]);
static OPSET: Schema = schema::<OperatorSetId>("a set of operators", &[]);
static DIMENSION: Schema = schema::<Dimension>("a dimension", &[]);
static SHAPE: Schema = schema::<ShapeProto>("a shape", &[(1, &DIMENSION)]);
static TENSOR_TYPE: Schema = schema::<TensorTypeProto>("a type", &[(2, &SHAPE)]);
static TYPE: Schema = schema::<TypeProto>("a type", &[(1, &TENSOR_TYPE)]);
static VALUE: Schema = schema::<ValueInfo>("a value", &[(2, &TYPE)]);
static TENSOR: Schema = schema::<TensorProto>("a tensor", &[(13, &ENTRY)]);
static ATTRIBUTE: Schema = schema::<AttributeProto>("an attribute", &[(5, &TENSOR), (6, &GRAPH)]);
static NODE: Schema = schema::<NodeProto>("a node", &[(5, &ATTRIBUTE)]);
static GRAPH: Schema = schema::<GraphProto>("a graph", &[(1, &NODE), (5, &TENSOR), (11, &VALUE), (12, &VALUE)]);
static FUNCTION: Schema = schema::<FunctionProto>("a function", &[(7, &NODE), (11, &ATTRIBUTE)]);
static MODEL: Schema = schema::<ModelProto>("the model", &[(7, &GRAPH), (8, &OPSET), (14, &ENTRY), (25, &FUNCTION)]);

/// Draws what the messages of a model take when they are decoded, or returns what is wrong with its bytes.
pub(super) fn model(bytes: &[u8], budget: &Budget) -> Result<(), FormatError> {
    walk(&MODEL, bytes, budget, 0)
}

/// [`model`] for a file of one tensor.
pub(super) fn tensor(bytes: &[u8], budget: &Budget) -> Result<(), FormatError> {
    walk(&TENSOR, bytes, budget, 0)
}

fn syntax(what: &str, wanted: &str, got: impl std::fmt::Display) -> FormatError {
    FormatError::new(Flaw::Syntax, what, wanted, got).advise("export the model again; the file is damaged")
}

/// Returns a number of at most ten bytes.
fn varint(reader: &mut Reader, what: &str) -> Result<u64, FormatError> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = reader.take(1, what)?[0];
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(syntax(what, "a number of at most 10 bytes", "a longer one"))
}

fn walk(schema: &Schema, bytes: &[u8], budget: &Budget, depth: usize) -> Result<(), FormatError> {
    if depth > MAX_DEPTH {
        return Err(syntax(schema.name, &format!("messages at most {MAX_DEPTH} deep"), "deeper ones"));
    }
    // Lists grow by doubling.
    budget.take(schema.name, 2 * schema.bytes as u64)?;
    let mut reader = Reader::new(bytes);
    while reader.left() > 0 {
        let key = varint(&mut reader, schema.name)?;
        let (field, wire) = (key >> 3, key & 7);
        if field == 0 {
            return Err(syntax(schema.name, "fields numbered from 1", 0));
        }
        match wire {
            0 => {
                varint(&mut reader, schema.name)?;
                budget.take(schema.name, 16)?;
            }
            1 => drop(reader.take(8, schema.name)?),
            5 => drop(reader.take(4, schema.name)?),
            2 => {
                let length = varint(&mut reader, schema.name)?;
                let inner = reader.take(length, schema.name)?;
                match schema.fields.iter().find(|(number, _)| *number == field) {
                    Some((_, message)) => walk(message, inner, budget, depth + 1)?,
                    // Numbers of one byte may become ones of eight; a tensor's raw bytes and its floats stay as long.
                    None => budget.take(schema.name, if keeps(schema, field) { 48 } else { 48 + 16 * length })?,
                }
            }
            other => return Err(syntax(schema.name, "wire type 0, 1, 2 or 5", other)),
        }
    }
    Ok(())
}

/// Returns whether a field of bytes takes no more than they do in the file.
fn keeps(schema: &Schema, field: u64) -> bool {
    std::ptr::eq(schema, &TENSOR) && field == 9
}
