//! Layers of volumes (N, depth, height, width, channels), composed of those of planes.

use super::{DataFormat, Triple, TripleStrides, groups, layer};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{Activation, Initializer, Regularizer, Scope},
    ops::{Conv2dOptions, Geometry, Interpolation, Padding, Part, Pool2dOptions, SliceGrad},
    tensor::Shape,
};

/// Returns a volume's shape, or an error if the tensor is not one.
fn volume(g: &Graph, layer: &str, x: Value) -> Result<Shape, OpError> {
    let shape = g.shape(x).clone();
    if shape.rank() == 5 {
        return Ok(shape);
    }
    let wanted = "an input of shape (N, depth, height, width, channels)";
    Err(OpError::new(layer, wanted, shape, "put the layer before Flatten, or give the input its channel axis"))
}

/// Returns the shape of the planes of volumes as images.
fn as_images(volumes: &Shape, planes: usize, image: &[usize]) -> Shape {
    let rows = volumes.dims()[0] * planes;
    if volumes.is_batched() { Shape::batched(rows, image) } else { Shape::fixed([&[rows], image].concat()) }
}

/// Returns an error for a padding that volumes do not have.
fn check_padding(layer: &str, padding: Padding) -> Result<(), OpError> {
    match padding {
        Padding::Valid | Padding::Same => Ok(()),
        other => Err(OpError::new(layer, "`Valid` or `Same`", format!("{other:?}"), "pad by ZeroPadding3D before")),
    }
}

/// Applies an operation on images to all planes of a volume.
fn on_planes(
    g: &mut Graph,
    x: Value,
    build: impl FnOnce(&mut Graph, Value) -> Result<Value, OpError>,
) -> Result<Value, OpError> {
    let shape = volume(g, "volume", x)?;
    let &[_, d, h, w, c] = shape.dims() else { return Ok(x) };
    let planes = g.reshape(x, as_images(&shape, d, &[h, w, c]))?;
    let y = build(g, planes)?;
    let row = [&[d], &g.shape(y).dims()[1..]].concat();
    g.reshape(y, shape.with_row(&row))
}

/// Applies an operation on images to a volume's depth, as their height.
fn on_depth(
    g: &mut Graph,
    x: Value,
    build: impl FnOnce(&mut Graph, Value) -> Result<Value, OpError>,
) -> Result<Value, OpError> {
    let shape = volume(g, "volume", x)?;
    let &[_, d, h, w, c] = shape.dims() else { return Ok(x) };
    let columns = g.reshape(x, shape.with_row(&[d, h * w, c]))?;
    let y = build(g, columns)?;
    let depth = g.shape(y).dims()[1];
    g.reshape(y, shape.with_row(&[depth, h, w, c]))
}

/// Returns a volume with so many zeros before and after it along each axis, or without so many voxels.
pub(super) fn padded(g: &mut Graph, x: Value, [depth, height, width]: [[isize; 2]; 3]) -> Result<Value, OpError> {
    let y = on_planes(g, x, |g, x| g.pad2d(x, [height, width]))?;
    on_depth(g, y, |g, x| g.pad2d(x, [depth, [0, 0]]))
}

/// Each plane of a kernel is a convolution of its own.
const MAX_PLANES: usize = 1 << 10;

/// The windows of an operation along the depth of volumes.
#[derive(Clone, Copy)]
pub(in crate::nn) struct Depth {
    /// Number of windows.
    pub(in crate::nn) planes: usize,
    pub(in crate::nn) stride: usize,
    pub(in crate::nn) dilation: usize,
}

/// Returns the planes of a padded volume that one tap of the windows reads, as images.
pub(in crate::nn) fn planes_of_tap(g: &mut Graph, x: Value, depth: Depth, tap: usize) -> Result<Value, OpError> {
    let part = Part { start: tap * depth.dilation, size: depth.planes, step: depth.stride as isize };
    let planes = g.slice_axis(x, 1, part)?;
    let shape = g.shape(planes).clone();
    g.reshape(planes, as_images(&shape, depth.planes, &shape.dims()[2..]))
}

/// Returns the convolution of a padded volume with a kernel (depth, height, width, in / groups, out), as images: the sum of a
/// two-dimensional one for each plane of the kernel.
pub(in crate::nn) fn convolution(
    g: &mut Graph,
    [x, kernel]: [Value; 2],
    depth: Depth,
    options: Conv2dOptions,
) -> Result<Value, OpError> {
    let taps = g.shape(kernel).dims().to_vec();
    let mut sum: Option<Value> = None;
    for tap in 0..taps[0] {
        let planes = planes_of_tap(g, x, depth, tap)?;
        let own = g.slice_axis(kernel, 0, Part::new(tap, 1))?;
        let own = g.reshape(own, Shape::fixed(&taps[1..]))?;
        let y = g.conv2d(planes, own, options)?;
        sum = Some(sum.map_or(Ok(y), |sum| g.add(sum, y))?);
    }
    sum.ok_or_else(|| OpError::new("conv3d", "a kernel of at least one plane", "none", "choose a larger kernel"))
}

/// The windows of a convolution of volumes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    pub strides: [usize; 3],
    pub dilation: [usize; 3],
    pub padding: Padding,
    pub groups: usize,
}

impl Windows {
    /// Returns how many planes are added before and after a depth, and the number of planes of the result.
    fn depths(&self, depth: usize, kernel: usize) -> Result<([isize; 2], usize), OpError> {
        let (stride, dilation) = (self.strides[0], self.dilation[0]);
        let span = kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
        let error = |wanted: &str| {
            let got = format!("depth {depth}, kernel {kernel}, stride {stride}, dilation {dilation}");
            OpError::new("conv3d", wanted, got, "choose a smaller kernel, or the padding `Same`")
        };
        if kernel == 0 || stride == 0 || dilation == 0 {
            return Err(error("sizes of at least 1"));
        }
        if self.padding == Padding::Same {
            let planes = depth.div_ceil(stride);
            let missing = ((planes - 1) * stride).saturating_add(span).saturating_sub(depth);
            let before = (missing / 2) as isize;
            return Ok(([before, missing as isize - before], planes));
        }
        let rest = depth.checked_sub(span).ok_or_else(|| error("a depth that the kernel fits into"))?;
        Ok(([0, 0], rest / stride + 1))
    }

    /// Returns the convolution of volumes with a kernel (depth, height, width, in / groups, out).
    pub fn convolve(&self, g: &mut Graph, x: Value, kernel: Value) -> Result<Value, OpError> {
        let shape = volume(g, "conv3d", x)?;
        check_padding("conv3d", self.padding)?;
        let (ends, planes) = self.depths(shape.dims()[1], g.shape(kernel).dims()[0])?;
        let x = if ends == [0, 0] { x } else { padded(g, x, [ends, [0, 0], [0, 0]])? };
        let options = Conv2dOptions {
            padding: self.padding,
            strides: [self.strides[1], self.strides[2]],
            dilation: [self.dilation[1], self.dilation[2]],
            groups: self.groups,
        };
        let depth = Depth { planes, stride: self.strides[0], dilation: self.dilation[0] };
        let y = convolution(g, [x, kernel], depth, options)?;
        let row = [&[planes], &g.shape(y).dims()[1..]].concat();
        g.reshape(y, shape.with_row(&row))
    }
}

layer! {
    /// Three-dimensional convolution (Keras `Conv3D`): kernel (kd, kh, kw, in / groups, out), stride 1, `Valid`, with bias;
    /// the sum of a two-dimensional one for each plane of the kernel.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([16, 28, 28, 1]).add(Conv3D::new(8, 3).padding(Same).activation(Relu)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 16, 28, 28, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Conv3D as "Conv3D" {
        new filters: usize = 1,
        new kernel_size: Triple = Triple([1; 3]),
        /// Sets the strides.
        into strides: Triple = Triple([1; 3]),
        /// Sets the padding.
        set padding: Padding = Padding::Valid,
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets the distance between the kernel's taps.
        into dilation_rate: Triple = Triple([1; 3]),
        /// Sets the number of groups of channels, each convolved on its own.
        set groups: usize = 1,
        /// Sets the activation, applied after the bias.
        set activation: Activation = Activation::Linear,
        /// Sets whether a bias is added.
        set use_bias: bool = true,
        /// Adds a penalty on the outputs to the loss.
        into activity_regularizer: Option<Regularizer> = None,
    } weights { kernel = Initializer::GlorotUniform, bias = Initializer::Zeros }
}

impl Conv3D {
    /// Returns a layer of `filters` filters of `kernel_size` taps along each axis, or of (depth, height, width) taps.
    pub fn new(filters: usize, kernel_size: impl Into<Triple>) -> Self {
        Conv3D { filters, kernel_size: kernel_size.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(&mut *scope, inputs[0], |scope, x| self.convolve(scope, x))?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }

    fn convolve(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let channels = volume(scope.graph, "conv3d", x)?.last();
        let [kd, kh, kw] = self.kernel_size.0;
        groups("conv3d", self.groups, channels, self.filters)?;
        let own = [kd, kh, kw, channels / self.groups, self.filters];
        let kernel = scope.weight("kernel", &own, self.kernel())?;
        let windows = Windows {
            strides: self.strides.0,
            dilation: self.dilation_rate.0,
            padding: self.padding,
            groups: self.groups,
        };
        let y = windows.convolve(scope.graph, x, kernel)?;
        let y = scope.bias(y, self.use_bias.then(|| self.bias()))?;
        self.activation.apply(scope, y)
    }
}

layer! {
    /// Transposed convolution of volumes (Keras `Conv3DTranspose`): kernel (kd, kh, kw, **out, in**); the sum of a
    /// two-dimensional one for each plane of the kernel.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4, 7, 7, 8]).add(Conv3DTranspose::new(4, 3).strides(2).padding(Same)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 8, 14, 14, 4)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Conv3DTranspose as "Conv3DTranspose" {
        new filters: usize = 1,
        new kernel_size: Triple = Triple([1; 3]),
        /// Sets the strides: the factors by which the output is larger than the input.
        into strides: Triple = Triple([1; 3]),
        /// Sets the padding.
        set padding: Padding = Padding::Valid,
        /// Sets how many voxels are added at the end, fewer than the strides; `None` adds none.
        into output_padding: TripleStrides = TripleStrides(None),
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets the distance between the kernel's taps.
        into dilation_rate: Triple = Triple([1; 3]),
        /// Sets the activation, applied after the bias.
        set activation: Activation = Activation::Linear,
        /// Sets whether a bias is added.
        set use_bias: bool = true,
        /// Adds a penalty on the outputs to the loss.
        into activity_regularizer: Option<Regularizer> = None,
    } weights { kernel = Initializer::GlorotUniform, bias = Initializer::Zeros }
}

impl Conv3DTranspose {
    /// Returns a layer of `filters` filters of `kernel_size` taps along each axis, or of (depth, height, width) taps.
    pub fn new(filters: usize, kernel_size: impl Into<Triple>) -> Self {
        Conv3DTranspose { filters, kernel_size: kernel_size.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(&mut *scope, inputs[0], |scope, x| self.convolve(scope, x))?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }

    fn convolve(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let shape = volume(scope.graph, "conv3d_transpose", x)?;
        check_padding("conv3d_transpose", self.padding)?;
        let (taps, depth, channels) = (self.kernel_size.0, shape.dims()[1], shape.last());
        let own = [taps[1], taps[2], self.filters, channels];
        let kernel = scope.weight("kernel", &[&taps[..1], &own[..]].concat(), self.kernel())?;
        let (strides, dilation) = (self.strides.0, self.dilation_rate.0);
        let options = |strides, dilation| Conv2dOptions { padding: self.padding, strides, dilation, groups: 1 };
        let (more_depth, more) = match self.output_padding.0 {
            Some(Triple([depth, height, width])) => (Some([depth, 0]), Some([height, width])),
            None => (None, None),
        };
        let along = options([strides[0], 1], [dilation[0], 1]).transposed([depth, 1], [taps[0], 1], more_depth);
        let along = along.ok_or_else(|| {
            let got = format!("depth {depth}, kernel {}, stride {}, dilation {}", taps[0], strides[0], dilation[0]);
            let wanted = "sizes of at least 1 and less output padding than the stride";
            OpError::new("conv3d_transpose", wanted, got, "leave the output padding out, or pad the result")
        })?;
        let of_planes = options([strides[1], strides[2]], [dilation[1], dilation[2]]);
        let y = convolution_transposed(scope.graph, [x, kernel], along, |g, x, kernel| {
            g.conv2d_transpose(x, kernel, of_planes, more)
        })?;
        let y = scope.bias(y, self.use_bias.then(|| self.bias()))?;
        self.activation.apply(scope, y)
    }
}

/// Returns the transposed convolution of volumes `x` with a kernel (kd, kh, kw, out, in): `along` is the convolution along the depth
/// whose gradient it is, `of_planes` transposes that of images with a plane of the kernel.
pub(in crate::nn) fn convolution_transposed(
    g: &mut Graph,
    [x, kernel]: [Value; 2],
    along: Geometry,
    of_planes: impl Fn(&mut Graph, Value, Value) -> Result<Value, OpError>,
) -> Result<Value, OpError> {
    let (shape, own) = (g.shape(x).clone(), g.shape(kernel).dims()[1..].to_vec());
    let (depth, planes, taps, stride) = (along.output[0], along.input[0], along.kernel[0], along.strides[0]);
    if taps > MAX_PLANES {
        let wanted = format!("a kernel of at most {MAX_PLANES} planes");
        return Err(OpError::new("conv3d_transpose", wanted, taps, "choose a smaller kernel"));
    }
    let mut sum: Option<Value> = None;
    for tap in 0..taps {
        // Plane d of the input goes to plane d · stride + at of the result.
        let at = (tap * along.dilation[0]) as isize - along.pads[0][0] as isize;
        let first = usize::try_from(-at).unwrap_or(0).div_ceil(stride);
        let last = usize::try_from(planes as isize - 1 - at).map_or(0, |room| depth.min(room / stride + 1));
        let Some(size) = last.checked_sub(first).filter(|&size| size > 0) else { continue };
        let part = g.slice_axis(x, 1, Part::new(first, size))?;
        let plane = g.slice_axis(kernel, 0, Part::new(tap, 1))?;
        let plane = g.reshape(plane, Shape::fixed(own.clone()))?;
        let y = on_planes(g, part, |g, x| of_planes(g, x, plane))?;
        let mut row = g.shape(y).dims()[1..].to_vec();
        let whole: Vec<Part> = row[1..].iter().map(|&n| Part::all(n)).collect();
        row[0] = planes;
        let start = (first * stride).saturating_add_signed(at);
        let parts = [&[Part { start, size, step: stride as isize }], &whole[..]].concat();
        let y = g.apply1(SliceGrad { shape: shape.with_row(&row), parts }, &[y])?;
        sum = Some(sum.map_or(Ok(y), |sum| g.add(sum, y))?);
    }
    sum.ok_or_else(|| OpError::new("conv3d_transpose", "a kernel that meets a plane", "none", "choose a larger kernel"))
}

/// Declares a layer that pools windows of volumes: of planes, then along the depth.
macro_rules! pooling {
    ($(#[$meta:meta])* $Layer:ident $kind:literal $pool:ident) => {
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {
                new pool_size: Triple = Triple([2; 3]),
                /// Sets the strides; `None` is the size of the window.
                into strides: TripleStrides = TripleStrides(None),
                /// Sets the padding.
                set padding: Padding = Padding::Valid,
                /// Sets the order of axes.
                into data_format: DataFormat = DataFormat::ChannelsLast,
            }
        }

        impl $Layer {
            /// Returns a layer with windows of `pool_size` along each axis, or of (depth, height, width).
            pub fn new(pool_size: impl Into<Triple>) -> Self {
                $Layer { pool_size: pool_size.into(), ..Self::default() }
            }

            fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
                check_padding("pooling3d", self.padding)?;
                let ([d, h, w], strides) = (self.pool_size.0, self.strides.0.unwrap_or(self.pool_size).0);
                let options = |pool, strides| Pool2dOptions { pool, strides, padding: self.padding };
                let y = self.data_format.last(scope, inputs[0], |scope, x| {
                    let g = &mut *scope.graph;
                    let y = on_planes(g, x, |g, x| g.$pool(x, options([h, w], [strides[1], strides[2]])))?;
                    on_depth(g, y, |g, y| g.$pool(y, options([d, 1], [strides[0], 1])))
                })?;
                Ok(vec![y])
            }
        }
    };
}

pooling! {
    /// Largest value of each window of a volume (Keras `MaxPooling3D`): the strides are the window's size unless given.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([16, 28, 28, 6]).add(MaxPooling3D::new([1, 2, 2])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 16, 14, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    MaxPooling3D "MaxPooling3D" max_pool2d
}

pooling! {
    /// Mean of each window of a volume (Keras `AveragePooling3D`), padding not counted: the strides are the window's size
    /// unless given.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([16, 28, 28, 6]).add(AveragePooling3D::new(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 8, 14, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    AveragePooling3D "AveragePooling3D" avg_pool2d
}

layer! {
    /// Repeats each voxel of a volume along depth, height and width (Keras `UpSampling3D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([2, 4, 4, 3]).add(UpSampling3D::new([1, 2, 3])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 2, 8, 12, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct UpSampling3D as "UpSampling3D" {
        new size: Triple = Triple([2; 3]),
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
    }
}

impl UpSampling3D {
    /// Returns a layer with this factor, or with (depth, height, width) factors.
    pub fn new(size: impl Into<Triple>) -> Self {
        UpSampling3D { size: size.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, x| {
            let (shape, [d, h, w]) = (volume(scope.graph, "up_sampling3d", x)?, self.size.0);
            let to = |axis: usize, times: usize| shape.dims()[axis].saturating_mul(times);
            let (plane, columns) = ([to(2, h), to(3, w)], to(2, h).saturating_mul(to(3, w)));
            let y = on_planes(scope.graph, x, |g, x| g.resize2d(x, plane, Interpolation::Nearest))?;
            on_depth(scope.graph, y, |g, y| g.resize2d(y, [to(1, d), columns], Interpolation::Nearest))
        })?;
        Ok(vec![y])
    }
}
