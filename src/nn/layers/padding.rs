use super::{DataFormat, layer, volumes::padded};
use crate::{
    graph::{OpError, Value},
    nn::Scope,
    ops::PadMode,
};
use serde::{Deserialize, Deserializer, Serialize};

/// Numbers of pixels at the four sides: from one number, from (height, width), or from [[top, bottom], [left, right]].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sides(pub [[usize; 2]; 2]);

impl From<usize> for Sides {
    fn from(n: usize) -> Self {
        Sides([[n; 2]; 2])
    }
}

impl From<[usize; 2]> for Sides {
    fn from([h, w]: [usize; 2]) -> Self {
        Sides([[h; 2], [w; 2]])
    }
}

impl From<[[usize; 2]; 2]> for Sides {
    fn from(sides: [[usize; 2]; 2]) -> Self {
        Sides(sides)
    }
}

/// Numbers of voxels at the six faces of a volume: from one number, from (depth, height, width), or from two for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Faces(pub [[usize; 2]; 3]);

impl From<usize> for Faces {
    fn from(n: usize) -> Self {
        Faces([[n; 2]; 3])
    }
}

impl From<[usize; 3]> for Faces {
    fn from(each: [usize; 3]) -> Self {
        Faces(each.map(|n| [n; 2]))
    }
}

impl From<[[usize; 2]; 3]> for Faces {
    fn from(faces: [[usize; 2]; 3]) -> Self {
        Faces(faces)
    }
}

impl<'de> Deserialize<'de> for Faces {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "neither one number, nor three, nor two for each axis")]
        enum Form {
            One(usize),
            Three([usize; 3]),
            Six([[usize; 2]; 3]),
        }
        Ok(match Form::deserialize(d)? {
            Form::One(n) => n.into(),
            Form::Three(three) => three.into(),
            Form::Six(six) => six.into(),
        })
    }
}

/// Numbers of timesteps at both ends: from one number, or from [start, end].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ends(pub [usize; 2]);

impl From<usize> for Ends {
    fn from(n: usize) -> Self {
        Ends([n; 2])
    }
}

impl From<[usize; 2]> for Ends {
    fn from(ends: [usize; 2]) -> Self {
        Ends(ends)
    }
}

impl<'de> Deserialize<'de> for Sides {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "neither one number, nor two, nor two for each axis")]
        enum Form {
            One(usize),
            Two([usize; 2]),
            Four([[usize; 2]; 2]),
        }
        Ok(match Form::deserialize(d)? {
            Form::One(n) => n.into(),
            Form::Two(two) => two.into(),
            Form::Four(four) => four.into(),
        })
    }
}

impl<'de> Deserialize<'de> for Ends {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "neither one number nor two")]
        enum Form {
            One(usize),
            Two([usize; 2]),
        }
        Ok(match Form::deserialize(d)? {
            Form::One(n) => n.into(),
            Form::Two(two) => two.into(),
        })
    }
}

/// Declares a layer that pads with zeros, or crops.
macro_rules! padding {
    ($(#[$meta:meta])* $Layer:ident $kind:literal $field:ident: $Sides:ident = $default:expr, $pad:expr) => {
        layer! {
            $(#[$meta])*
            pub struct $Layer as $kind {
                new $field: $Sides = $default,
                /// Sets the order of axes.
                into data_format: DataFormat = DataFormat::ChannelsLast,
            }
        }

        impl $Layer {
            /// Returns a layer with this number at each side, or with the listed ones.
            pub fn new($field: impl Into<$Sides>) -> Self {
                $Layer { $field: $field.into(), ..Self::default() }
            }

            fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
                let pad: fn(&mut Scope, Value, $Sides) -> Result<Value, OpError> = $pad;
                let y = self.data_format.last(scope, inputs[0], |scope, x| pad(scope, x, self.$field))?;
                Ok(vec![y])
            }
        }
    };
}

fn signed(ends: [usize; 2], sign: isize) -> [isize; 2] {
    ends.map(|n| sign * isize::try_from(n).unwrap_or(isize::MAX / 4))
}

padding! {
    /// Pads images with zeros (Keras `ZeroPadding2D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([5, 5, 3]).add(ZeroPadding2D::new([[0, 1], [2, 3]])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 6, 10, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    ZeroPadding2D "ZeroPadding2D" padding: Sides = Sides([[1; 2]; 2]),
    |scope, x, sides| scope.graph.pad2d(x, sides.0.map(|ends| signed(ends, 1)))
}

padding! {
    /// Crops images (Keras `Cropping2D`).
    Cropping2D "Cropping2D" cropping: Sides = Sides([[0; 2]; 2]),
    |scope, x, sides| scope.graph.pad2d(x, sides.0.map(|ends| signed(ends, -1)))
}

padding! {
    /// Pads sequences with zeros (Keras `ZeroPadding1D`).
    ZeroPadding1D "ZeroPadding1D" padding: Ends = Ends([1; 2]),
    |scope, x, ends| scope.graph.pad1d(x, signed(ends.0, 1), PadMode::Constant(0.0))
}

padding! {
    /// Crops sequences (Keras `Cropping1D`).
    Cropping1D "Cropping1D" cropping: Ends = Ends([1; 2]),
    |scope, x, ends| scope.graph.pad1d(x, signed(ends.0, -1), PadMode::Constant(0.0))
}

padding! {
    /// Pads volumes with zeros (Keras `ZeroPadding3D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4, 5, 5, 3]).add(ZeroPadding3D::new([1, 0, 2])).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 6, 5, 9, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    ZeroPadding3D "ZeroPadding3D" padding: Faces = Faces([[1; 2]; 3]),
    |scope, x, faces| padded(scope.graph, x, faces.0.map(|ends| signed(ends, 1)))
}

padding! {
    /// Crops volumes (Keras `Cropping3D`).
    Cropping3D "Cropping3D" cropping: Faces = Faces([[1; 2]; 3]),
    |scope, x, faces| padded(scope.graph, x, faces.0.map(|ends| signed(ends, -1)))
}
