use crate::{
    graph::{Graph, OpError, Value},
    nn::Scope,
    tensor::Shape,
};
use serde::{Deserialize, Deserializer, Serialize};

/// A size along height and width, from one number for both or from two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pair(pub [usize; 2]);

impl From<usize> for Pair {
    fn from(n: usize) -> Self {
        Pair([n, n])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(pair: [usize; 2]) -> Self {
        Pair(pair)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((h, w): (usize, usize)) -> Self {
        Pair([h, w])
    }
}

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "neither one size nor two")]
        enum Form {
            One(usize),
            Two([usize; 2]),
        }
        Ok(match Form::deserialize(d)? {
            Form::One(n) => n.into(),
            Form::Two(pair) => Pair(pair),
        })
    }
}

/// A size along depth, height and width, from one number for all or from three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Triple(pub [usize; 3]);

impl From<usize> for Triple {
    fn from(n: usize) -> Self {
        Triple([n; 3])
    }
}

impl From<[usize; 3]> for Triple {
    fn from(triple: [usize; 3]) -> Self {
        Triple(triple)
    }
}

impl<'de> Deserialize<'de> for Triple {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "neither one size nor three")]
        enum Form {
            One(usize),
            Three([usize; 3]),
        }
        Ok(match Form::deserialize(d)? {
            Form::One(n) => n.into(),
            Form::Three(triple) => Triple(triple),
        })
    }
}

/// The strides of windows of volumes; `None` is the window's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TripleStrides(pub Option<Triple>);

impl<T: Into<Triple>> From<T> for TripleStrides {
    fn from(triple: T) -> Self {
        TripleStrides(Some(triple.into()))
    }
}

/// A size along a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Single(pub usize);

impl From<usize> for Single {
    fn from(n: usize) -> Self {
        Single(n)
    }
}

impl<'de> Deserialize<'de> for Single {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "wanted a size")]
        enum Form {
            One(usize),
            List([usize; 1]),
        }
        Ok(match Form::deserialize(d)? {
            Form::One(n) | Form::List([n]) => Single(n),
        })
    }
}

/// The stride of windows of a sequence; `None` is the window's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SingleStrides(pub Option<Single>);

impl From<usize> for SingleStrides {
    fn from(n: usize) -> Self {
        SingleStrides(Some(Single(n)))
    }
}

/// One axis, or several; negative ones count from the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Axis {
    /// One.
    One(isize),
    /// Several.
    Many(Vec<isize>),
}

impl Axis {
    /// Returns the axes.
    pub fn list(&self) -> &[isize] {
        match self {
            Axis::One(axis) => std::slice::from_ref(axis),
            Axis::Many(axes) => axes,
        }
    }
}

impl From<isize> for Axis {
    fn from(axis: isize) -> Self {
        Axis::One(axis)
    }
}

impl<const N: usize> From<[isize; N]> for Axis {
    fn from(axes: [isize; N]) -> Self {
        Axis::Many(axes.to_vec())
    }
}

/// The strides of windows; `None` is the window's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Strides(pub Option<Pair>);

impl<T: Into<Pair>> From<T> for Strides {
    fn from(pair: T) -> Self {
        Strides(Some(pair.into()))
    }
}

/// The position of the channels' axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    /// (N, height, width, channels), in which Hubel computes.
    #[default]
    ChannelsLast,
    /// (N, channels, height, width), converted at the layer's input and output.
    ChannelsFirst,
}

impl DataFormat {
    /// Returns the channels' axis of a tensor of `rank` axes.
    pub(crate) fn channels(self, rank: usize) -> usize {
        match self {
            DataFormat::ChannelsLast => rank - 1,
            DataFormat::ChannelsFirst => 1,
        }
    }

    /// Returns the result of `build` on `x` with its channels last, in the original order of axes.
    pub(crate) fn last(
        self,
        scope: &mut Scope,
        x: Value,
        build: impl FnOnce(&mut Scope, Value) -> Result<Value, OpError>,
    ) -> Result<Value, OpError> {
        let rank = scope.graph.shape(x).rank();
        if self == DataFormat::ChannelsLast || rank < 3 {
            return build(scope, x);
        }
        let to_last: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
        let x = scope.graph.transpose(x, &to_last)?;
        let y = build(scope, x)?;
        // A result without positions has no order of axes.
        let rank = scope.graph.shape(y).rank();
        if rank < 3 {
            return Ok(y);
        }
        let to_first: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        scope.graph.transpose(y, &to_first)
    }
}

/// Returns an image's shape, or an error if the tensor is not one.
pub(crate) fn image(g: &Graph, layer: &str, x: Value) -> Result<Shape, OpError> {
    let shape = g.shape(x).clone();
    if shape.rank() == 4 {
        return Ok(shape);
    }
    let advice = "put the layer before Flatten, or give the input its channel axis";
    Err(OpError::new(layer, "an input of shape (N, height, width, channels)", shape, advice))
}

/// Returns an error unless groups divide channels and filters.
pub(crate) fn groups(layer: &str, groups: usize, channels: usize, filters: usize) -> Result<(), OpError> {
    if groups > 0 && channels.is_multiple_of(groups) && filters.is_multiple_of(groups) {
        return Ok(());
    }
    let wanted = format!("groups that divide {channels} channels and {filters} filters");
    Err(OpError::new(layer, wanted, groups, "choose another number of groups or filters"))
}
