use super::{DataFormat, Pair, Single, image, layer};
use crate::{
    graph::{OpError, Value},
    nn::Scope,
    ops::{FillMode, Interpolation, PadMode, Part},
};

layer! {
    /// Enlarges images by integer factors (Keras `UpSampling2D`), by repeating or interpolating pixels.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4, 5, 3]).add(UpSampling2D::new([2, 3])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 8, 15, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct UpSampling2D as "UpSampling2D" {
        new size: Pair = Pair([2, 2]),
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets how pixels are interpolated.
        set interpolation: Interpolation = Interpolation::Nearest,
    }
}

impl UpSampling2D {
    /// Returns a layer with this factor, or with (height, width) factors.
    pub fn new(size: impl Into<Pair>) -> Self {
        UpSampling2D { size: size.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, x| {
            let shape = image(scope.graph, "up_sampling2d", x)?;
            let size = [0, 1].map(|axis| shape.dims()[axis + 1].saturating_mul(self.size.0[axis]));
            scope.graph.resize2d(x, size, self.interpolation)
        })?;
        Ok(vec![y])
    }
}

layer! {
    /// Repeats each timestep of a sequence (Keras `UpSampling1D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4, 3]).add(UpSampling1D::new(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 8, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct UpSampling1D as "UpSampling1D" {
        new size: Single = Single(2),
    }
}

impl UpSampling1D {
    /// Returns a layer with this factor.
    pub fn new(size: usize) -> Self {
        UpSampling1D { size: Single(size), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let length = scope.graph.shape(inputs[0]).dims().get(1).copied().unwrap_or(1);
        let y = scope.graph.resize1d(inputs[0], length.saturating_mul(self.size.0), Interpolation::Nearest)?;
        Ok(vec![y])
    }
}

/// Returns the rows and columns of the largest central part of images with the aspect ratio of `size`.
pub(super) fn of_aspect([h, w]: [usize; 2], size: [usize; 2]) -> [Part; 2] {
    let rows = (w.saturating_mul(size[0]) / size[1].max(1)).min(h).max(1);
    let columns = (h.saturating_mul(size[1]) / size[0].max(1)).min(w).max(1);
    [Part::new((h - rows) / 2, rows), Part::new((w - columns) / 2, columns)]
}

layer! {
    /// Resizes images (Keras `Resizing`), with half-pixel centres and no antialiasing.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([100, 80, 3]).add(Resizing::new(32, 32)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 32, 32, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Resizing as "Resizing" {
        new height: usize = 1,
        new width: usize = 1,
        /// Sets how pixels are interpolated.
        set interpolation: Interpolation = Interpolation::Bilinear,
        /// Sets whether cropping keeps the aspect ratio, instead of stretching the image.
        set crop_to_aspect_ratio: bool = false,
        /// Sets whether bands keep the aspect ratio, instead of stretching the image.
        set pad_to_aspect_ratio: bool = false,
        /// Sets how the bands are filled; only [`FillMode::Constant`] is supported.
        set fill_mode: FillMode = FillMode::Constant,
        /// Sets the value of the bands.
        set fill_value: f32 = 0.0,
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
    }
}

impl Resizing {
    /// Returns a layer with this output size.
    pub fn new(height: usize, width: usize) -> Self {
        Resizing { height, width, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, mut x| {
            let shape = image(scope.graph, "resizing", x)?;
            let (h, w) = (shape.dims()[1], shape.dims()[2]);
            if self.crop_to_aspect_ratio {
                let [rows, columns] = of_aspect([h, w], [self.height, self.width]);
                x = scope.graph.slice_axis(x, 1, rows)?;
                x = scope.graph.slice_axis(x, 2, columns)?;
            }
            if self.pad_to_aspect_ratio {
                if self.fill_mode != FillMode::Constant {
                    let (wanted, got) = ("fill_mode constant", format!("{:?}", self.fill_mode));
                    return Err(OpError::new("resizing", wanted, got, "choose it, or crop_to_aspect_ratio"));
                }
                let band = |of: usize, to: usize, across: usize, all: usize| {
                    (of.saturating_mul(to) / across.max(1)).saturating_sub(all) as isize / 2
                };
                let rows = band(w, self.height, self.width, h);
                let columns = if rows > 0 { 0 } else { band(h, self.width, self.height, w) };
                x = scope.graph.pad2d_with(x, [[rows; 2], [columns; 2]], PadMode::Constant(self.fill_value))?;
            }
            scope.graph.resize2d(x, [self.height, self.width], self.interpolation)
        })?;
        Ok(vec![y])
    }
}
