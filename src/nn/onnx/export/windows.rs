//! Convolutions, pooling, resizing and local response normalisation: operators on maps.

use super::writer::{Attr, Writer, channels_first, ints};
use crate::{
    graph::{Node, Op, OpError, Value},
    ops::{Conv2d, Conv2dGradInput, Geometry, Interpolation, LocalResponseNorm, Pool2d, Pooling, Resize2d},
};

pub fn write(w: &mut Writer, node: &Node, value: Value) -> Option<Result<(), OpError>> {
    let op: &dyn Op = node.op()?.as_ref();
    let x = node.inputs.first().copied()?;
    Some(if let Some(op) = op.downcast::<Conv2d>() {
        conv(w, &node.inputs, value, op)
    } else if let Some(op) = op.downcast::<Conv2dGradInput>() {
        conv_transpose(w, &node.inputs, value, &op.geometry)
    } else if let Some(op) = op.downcast::<Pool2d>() {
        pool(w, x, value, op)
    } else if let Some(op) = op.downcast::<Resize2d>() {
        resize(w, x, value, op)
    } else if let Some(op) = op.downcast::<LocalResponseNorm>() {
        local_response(w, x, value, op)
    } else {
        return None;
    })
}

/// Returns paddings as ONNX lists them.
fn pads([[top, bottom], [left, right]]: [[usize; 2]; 2]) -> Attr {
    ints(&[top, left, bottom, right])
}

fn conv(w: &mut Writer, inputs: &[Value], value: Value, op: &Conv2d) -> Result<(), OpError> {
    let (image, kernel) = (w.shape(inputs[0]).dims().to_vec(), w.shape(inputs[1]).dims().to_vec());
    let geometry = Geometry::new([image[1], image[2]], [kernel[0], kernel[1]], op.options)
        .ok_or_else(|| OpError::new("Conv", "a kernel that fits", "another", "use larger images"))?;
    let x = w.get(inputs[0], &channels_first(4))?;
    let weights = w.get(inputs[1], &[3, 2, 0, 1])?;
    let attributes = [
        ("kernel_shape", ints(&geometry.kernel)),
        ("strides", ints(&geometry.strides)),
        ("dilations", ints(&geometry.dilation)),
        ("pads", pads(geometry.pads)),
        ("group", Attr::Int(geometry.groups as i64)),
    ];
    let y = w.node_of(value, "Conv", &[&x, &weights], &attributes);
    w.set(value, y, channels_first(4));
    Ok(())
}

fn conv_transpose(w: &mut Writer, inputs: &[Value], value: Value, g: &Geometry) -> Result<(), OpError> {
    let x = w.get(inputs[0], &channels_first(4))?;
    let weights = w.get(inputs[1], &[3, 2, 0, 1])?;
    // The convolution's images are the result, whose last pixels no window may reach.
    let more = [0, 1].map(|a| {
        let reached = (g.output[a] - 1) * g.strides[a] + (g.kernel[a] - 1) * g.dilation[a] + 1;
        (g.input[a] + g.pads[a][0] + g.pads[a][1]).saturating_sub(reached)
    });
    let attributes = [
        ("kernel_shape", ints(&g.kernel)),
        ("strides", ints(&g.strides)),
        ("dilations", ints(&g.dilation)),
        ("pads", pads(g.pads)),
        ("output_padding", ints(&more)),
        ("group", Attr::Int(g.groups as i64)),
    ];
    let y = w.node_of(value, "ConvTranspose", &[&x, &weights], &attributes);
    w.set(value, y, channels_first(4));
    Ok(())
}

fn pool(w: &mut Writer, x: Value, value: Value, op: &Pool2d) -> Result<(), OpError> {
    let dims = w.shape(x).dims().to_vec();
    let (size, options) = ([dims[1], dims[2]], &op.options);
    let (padding, _) = options
        .padding
        .resolve(size, options.pool, options.strides)
        .ok_or_else(|| OpError::new("pool", "windows that fit", format!("{:?}", options.pool), "use larger images"))?;
    let name = w.get(x, &channels_first(4))?;
    let mut attributes =
        vec![("kernel_shape", ints(&options.pool)), ("strides", ints(&options.strides)), ("pads", pads(padding))];
    let kind = match op.pooling {
        Pooling::Max => "MaxPool",
        Pooling::Average { count_padding } => {
            attributes.push(("count_include_pad", Attr::Int(i64::from(count_padding))));
            "AveragePool"
        }
        Pooling::L2 => {
            attributes.push(("p", Attr::Int(2)));
            "LpPool"
        }
    };
    let y = w.node_of(value, kind, &[&name], &attributes);
    w.set(value, y, channels_first(4));
    Ok(())
}

fn resize(w: &mut Writer, x: Value, value: Value, op: &Resize2d) -> Result<(), OpError> {
    let name = w.get(x, &channels_first(4))?;
    let shape = w.shape(x).clone();
    let dims = shape.dims();
    let ratio = |a: usize| {
        let (from, to) = (dims[a + 1], op.size[a]);
        // Readers round the product down, which may end just below.
        let exact = to as f32 / from as f32;
        if f64::from(exact) * (from as f64) < to as f64 { exact.next_up() } else { exact }
    };
    let ratios = [1.0, 1.0, ratio(0), ratio(1)];
    let scales = w.floats(&[4], ratios.to_vec());
    let is_whole = (0..2).all(|a| op.size[a].is_multiple_of(dims[a + 1]));
    if op.interpolation == Interpolation::Nearest && !is_whole {
        let advice = "enlarge by whole numbers, or use bilinear interpolation";
        return Err(OpError::new("Resize", "whole factors for nearest", format!("{ratios:?}"), advice));
    }
    let attributes = match op.interpolation {
        Interpolation::Nearest => vec![
            ("mode", Attr::Text("nearest")),
            ("coordinate_transformation_mode", Attr::Text("asymmetric")),
            ("nearest_mode", Attr::Text("floor")),
        ],
        Interpolation::Bilinear => {
            vec![("mode", Attr::Text("linear")), ("coordinate_transformation_mode", Attr::Text("half_pixel"))]
        }
    };
    let y = w.node_of(value, "Resize", &[&name, "", &scales], &attributes);
    w.set(value, y, channels_first(4));
    Ok(())
}

fn local_response(w: &mut Writer, x: Value, value: Value, op: &LocalResponseNorm) -> Result<(), OpError> {
    let order = channels_first(w.rank(x));
    let name = w.get(x, &order)?;
    let attributes = [
        ("size", Attr::Int(op.size as i64)),
        ("alpha", Attr::Float(op.alpha)),
        ("beta", Attr::Float(op.beta)),
        ("bias", Attr::Float(op.bias)),
    ];
    let y = w.node_of(value, "LRN", &[&name], &attributes);
    w.set(value, y, order);
    Ok(())
}
