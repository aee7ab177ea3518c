//! Operations that move elements.

use super::*;
use crate::{nn::layers, ops::Part};

/// What an index does to an axis.
enum Key {
    Part { part: Part, dropped: bool },
    New,
}

impl Call<'_, '_> {
    pub(super) fn rearranged(&mut self) -> Result<Value, OpError> {
        match self.operation.class {
            "Reshape" => self.reshape(),
            "GetItem" => self.item(),
            "Concatenate" => {
                let parts = self.list("xs")?;
                let axis = self.axis("axis", parts.first().map_or(1, |&x| self.rank(x)), -1)?;
                self.graph().concat(&parts, axis)
            }
            "Stack" => {
                let parts = self.list("x")?;
                let axis = self.axis("axis", parts.first().map_or(1, |&x| self.rank(x)) + 1, 0)?;
                let parts: Vec<Value> =
                    parts.into_iter().map(|x| self.with_axes(x, &[axis])).collect::<Result<_, _>>()?;
                self.graph().concat(&parts, axis)
            }
            "Resize" => self.resized(),
            "Pad" => self.padded(),
            class => {
                let x = self.only()?;
                match class {
                    "ExpandDims" => self.expanded(x),
                    "Squeeze" => self.squeezed(x),
                    "Transpose" | "Swapaxes" | "Moveaxis" => self.permuted(x),
                    "Flip" => self.axes("axis", self.rank(x))?.into_iter().try_fold(x, |x, axis| {
                        let n = self.graph().shape(x).dims()[axis];
                        self.graph().slice_axis(x, axis, Part { start: n - 1, size: n, step: -1 })
                    }),
                    "BroadcastTo" => {
                        let row = self.row("shape")?;
                        let shape = self.graph().shape(x).with_row(&row);
                        self.graph().expand(x, &shape)
                    }
                    "Repeat" | "Tile" => self.repeated(x),
                    "DepthToSpace" | "SpaceToDepth" => self.blocks(x),
                    _ => Err(self.operation.wrong("an operation that is supported", class, "use others")),
                }
            }
        }
    }

    /// Returns the extents of a sample from a shape with the batch in front, which is −1, null or the batch's size.
    fn row(&self, name: &str) -> Result<Vec<usize>, OpError> {
        let extents = match self.argument(name) {
            Json::Array(items) => items.get(1..).unwrap_or_default().iter().map(Json::as_u64).collect(),
            _ => None,
        };
        let extents: Option<Vec<u64>> = extents;
        extents.map(|all| all.into_iter().map(|d| d as usize).collect()).ok_or_else(|| {
            let got = shortened(self.argument(name));
            self.operation.wrong("a shape with known extents behind the batch", got, "write the extents")
        })
    }

    fn reshape(&mut self) -> Result<Value, OpError> {
        let x = self.only()?;
        let listed = match self.argument("newshape") {
            Json::Array(items) => items.clone(),
            one => vec![one.clone()],
        };
        let numbers: Vec<i64> = listed.iter().map(|d| d.as_i64().unwrap_or(-1)).collect();
        let Some((-1, row)) = numbers.split_first() else {
            let got = shortened(self.argument("newshape"));
            return Err(self.operation.wrong(
                "a shape with -1 in front, for the batch",
                got,
                "samples are computed apart",
            ));
        };
        let target: Vec<isize> = row.iter().map(|&d| d as isize).collect();
        Ok(layers::Reshape::new(target).build(self.scope, &[x])?.swap_remove(0))
    }

    /// Returns the operand with axes of extent 1 at these places of the result, in order.
    pub(super) fn with_axes(&mut self, x: Value, axes: &[usize]) -> Result<Value, OpError> {
        let shape = self.graph().shape(x).clone();
        let mut dims = shape.dims().to_vec();
        for &axis in axes {
            dims.insert(axis.min(dims.len()), 1);
        }
        self.graph().reshape(x, shape.with_row(&dims[1..]))
    }

    fn expanded(&mut self, x: Value) -> Result<Value, OpError> {
        let more = self.argument("axis").as_array().map_or(1, Vec::len);
        let axes = self.axes("axis", self.rank(x) + more)?;
        self.with_axes(x, &axes)
    }

    fn squeezed(&mut self, x: Value) -> Result<Value, OpError> {
        let shape = self.graph().shape(x).clone();
        let axes = match self.argument("axis") {
            Json::Null => (1..shape.rank()).filter(|&a| shape.dims()[a] == 1).collect(),
            _ => self.axes("axis", shape.rank())?,
        };
        if let Some(axis) = axes.iter().find(|&&a| shape.dims()[a] != 1) {
            return Err(self.operation.wrong("axes of extent 1", format!("axis {axis} of {shape}"), "choose others"));
        }
        let row: Vec<usize> = (1..shape.rank()).filter(|a| !axes.contains(a)).map(|a| shape.dims()[a]).collect();
        self.graph().reshape(x, shape.with_row(&row))
    }

    fn permuted(&mut self, x: Value) -> Result<Value, OpError> {
        let rank = self.rank(x);
        let order: Vec<usize> = match self.operation.class {
            "Swapaxes" => {
                let (a, b) = (self.axis("axis1", rank, 1)?, self.axis("axis2", rank, 1)?);
                let mut order: Vec<usize> = (0..rank).collect();
                order.swap(a, b);
                order
            }
            "Moveaxis" => {
                let (from, to) = (self.axis("source", rank, 1)?, self.axis("destination", rank, 1)?);
                let mut order: Vec<usize> = (0..rank).collect();
                let moved = order.remove(from);
                order.insert(to, moved);
                order
            }
            _ => {
                let axes = self.integers("axes")?;
                axes.iter().filter_map(|&a| axis(a as isize, rank)).collect()
            }
        };
        self.graph().transpose(x, &order)
    }

    fn repeated(&mut self, x: Value) -> Result<Value, OpError> {
        let shape = self.graph().shape(x).clone();
        let times = self.integers("repeats")?;
        let each = self.operation.class == "Repeat";
        let factors: Vec<usize> = match (each, &times[..]) {
            (true, &[n]) => {
                let at = self.axis("axis", shape.rank(), 1)?;
                (0..shape.rank()).map(|a| if a == at { n.max(0) as usize } else { 1 }).collect()
            }
            (false, all) if all.len() == shape.rank() && all[0] == 1 => {
                all.iter().map(|&n| n.max(0) as usize).collect()
            }
            _ => {
                return Err(self.operation.wrong("one number for each axis, 1 for the batch", shape, "repeat samples"));
            }
        };
        let (mut x, mut dims) = (x, shape.dims().to_vec());
        for (axis, &n) in factors.iter().enumerate().filter(|(_, n)| **n != 1) {
            // A new axis behind the elements repeats each, one before them repeats all.
            let mut wide = dims.clone();
            wide.insert(if each { axis + 1 } else { axis }, 1);
            x = self.graph().reshape(x, shape.with_row(&wide[1..]))?;
            wide[if each { axis + 1 } else { axis }] = n;
            x = self.graph().expand(x, &shape.with_row(&wide[1..]))?;
            dims[axis] = dims[axis].saturating_mul(n);
            x = self.graph().reshape(x, shape.with_row(&dims[1..]))?;
        }
        Ok(x)
    }

    /// Returns blocks of pixels as channels, or channels as blocks of pixels.
    fn blocks(&mut self, x: Value) -> Result<Value, OpError> {
        let shape = self.graph().shape(x).clone();
        let size = self.argument("block_size").as_u64().unwrap_or(0) as usize;
        if self.argument("data_format").as_str().is_some_and(|f| f != "channels_last") {
            return Err(self.operation.wrong("channels_last", "another order of axes", "transpose the images first"));
        }
        let &[_, h, w, c] = shape.dims() else {
            return Err(self.operation.wrong("images (N, height, width, channels)", shape, "reshape them"));
        };
        let (to_depth, square) = (self.operation.class == "SpaceToDepth", size.saturating_mul(size));
        let fits = if to_depth { h.is_multiple_of(size) && w.is_multiple_of(size) } else { c.is_multiple_of(square) };
        if size == 0 || !fits {
            return Err(self.operation.wrong("blocks that divide the images", format!("{shape} by {size}"), "resize"));
        }
        let (rows, order, row) = match to_depth {
            true => ([h / size, size, w / size, size, c], [0, 1, 3, 2, 4, 5], [h / size, w / size, square * c]),
            false => ([h, w, size, size, c / square], [0, 1, 3, 2, 4, 5], [h * size, w * size, c / square]),
        };
        let g = self.graph();
        let y = g.reshape(x, shape.with_row(&rows))?;
        let y = g.transpose(y, &order)?;
        g.reshape(y, shape.with_row(&row))
    }

    fn padded(&mut self) -> Result<Value, OpError> {
        let x = self.only()?;
        let shape = self.graph().shape(x).clone();
        let mode = self.argument("mode").as_str().unwrap_or("constant").to_owned();
        let value = self.number("constant_values", 0.0);
        let pairs: Option<Vec<[usize; 2]>> = serde_json::from_value(self.argument("pad_width").clone()).ok();
        let advice = "use a padding layer";
        let Some(pairs) = pairs.filter(|p| p.len() == shape.rank() && p[0] == [0, 0] && mode == "constant") else {
            let got = format!("{}, {mode}", shortened(self.argument("pad_width")));
            return Err(self.operation.wrong("a pair for each axis, [0, 0] for the batch, of a constant", got, advice));
        };
        let (mut x, mut dims) = (x, shape.dims().to_vec());
        for (axis, pair) in pairs.iter().enumerate() {
            let mut parts = vec![x];
            for (before, &n) in pair.iter().enumerate().filter(|(_, n)| **n > 0) {
                let mut band = dims.clone();
                band[axis] = n;
                let filling = self.graph().constant(value)?;
                let band = self.graph().expand(filling, &shape.with_row(&band[1..]))?;
                parts.insert(if before == 0 { 0 } else { parts.len() }, band);
            }
            dims[axis] = dims[axis].saturating_add(pair[0]).saturating_add(pair[1]);
            if parts.len() > 1 {
                x = self.graph().concat(&parts, axis)?;
            }
        }
        Ok(x)
    }

    fn resized(&mut self) -> Result<Value, OpError> {
        let x = self.only()?;
        let off = ["antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio"].iter().all(|key| !self.flag(key));
        let (size, last) = (self.integers("size")?, self.argument("data_format").as_str() != Some("channels_first"));
        self.read.borrow_mut().extend(["fill_mode".to_owned(), "fill_value".to_owned()]);
        let interpolation = match self.argument("interpolation").as_str() {
            None | Some("bilinear") => crate::ops::Interpolation::Bilinear,
            Some("nearest") => crate::ops::Interpolation::Nearest,
            Some(other) => return Err(self.operation.wrong("bilinear or nearest", other, "choose one of those")),
        };
        match size[..] {
            [h, w] if off && last => self.graph().resize2d(x, [h.max(0) as usize, w.max(0) as usize], interpolation),
            _ => Err(self.operation.wrong("a size and no other option", format!("{size:?}"), "use `Resizing`")),
        }
    }

    pub(super) fn split(&mut self) -> Result<Vec<Value>, OpError> {
        let x = self.only()?;
        let axis = self.axis("axis", self.rank(x), 0)?;
        let extent = self.graph().shape(x).dims()[axis];
        let mut borders: Vec<usize> = match self.argument("indices_or_sections") {
            Json::Array(_) => self.integers("indices_or_sections")?.iter().map(|&n| n.max(0) as usize).collect(),
            one => {
                let n = one.as_u64().unwrap_or(0) as usize;
                if n == 0 || !extent.is_multiple_of(n) || n > extent {
                    return Err(self.operation.wrong("sections that divide the axis", format!("{n} of {extent}"), ""));
                }
                (1..n).map(|i| i * (extent / n)).collect()
            }
        };
        borders.insert(0, 0);
        borders.push(extent);
        if borders.windows(2).any(|b| b[0] >= b[1]) {
            return Err(self.operation.wrong("borders that rise", format!("{borders:?}"), "list them in order"));
        }
        borders.windows(2).map(|b| self.graph().slice_axis(x, axis, Part::new(b[0], b[1] - b[0]))).collect()
    }

    pub(super) fn unstack(&mut self) -> Result<Vec<Value>, OpError> {
        let x = self.only()?;
        let axis = self.axis("axis", self.rank(x), 0)?;
        let shape = self.graph().shape(x).clone();
        self.read.borrow_mut().insert("num".to_owned());
        let row: Vec<usize> = (1..shape.rank()).filter(|&a| a != axis).map(|a| shape.dims()[a]).collect();
        let one = |i: usize| {
            let part = self.scope.graph.slice_axis(x, axis, Part::new(i, 1))?;
            self.scope.graph.reshape(part, shape.with_row(&row))
        };
        (0..shape.dims()[axis].min(1 << 12)).map(one).collect()
    }

    /// Returns a part of a tensor, as Python's brackets name it.
    fn item(&mut self) -> Result<Value, OpError> {
        let mut x = self.only()?;
        let shape = self.graph().shape(x).clone();
        let written = match self.argument("key") {
            Json::Array(items) => items.clone(),
            Json::Object(map) if map.get("class_name").is_some_and(|c| c == "__tuple__") => {
                map["config"]["value"].as_array().cloned().unwrap_or_default()
            }
            one => vec![one.clone()],
        };
        let keys = self.keys(&written, &shape)?;
        let (mut row, mut old) = (Vec::new(), 0);
        for key in &keys {
            match key {
                Key::New if old > 0 => row.push(1),
                Key::New => return Err(self.operation.wrong("the batch in front", "a new axis", "add it behind")),
                Key::Part { part, dropped } => {
                    if old > 0 {
                        x = self.graph().slice_axis(x, old, *part)?;
                        row.extend((!dropped).then_some(part.size));
                    } else if *dropped || *part != Part::all(shape.dims()[0]) {
                        let advice = "samples are computed apart: take all of the first axis";
                        return Err(self.operation.wrong("all samples", shortened(&written[0]), advice));
                    }
                    old += 1;
                }
            }
        }
        self.graph().reshape(x, shape.with_row(&row))
    }

    fn keys(&self, written: &[Json], shape: &crate::tensor::Shape) -> Result<Vec<Key>, OpError> {
        let is = |key: &Json, class: &str| key["class_name"] == class;
        let of_axes = written.iter().filter(|k| !k.is_null() && !is(k, "__ellipsis__")).count();
        let error = |key: &Json| {
            let advice = "index with numbers, slices, None and `...`";
            self.operation.wrong(&format!("an index of {shape}"), shortened(key), advice)
        };
        if of_axes > shape.rank() {
            return Err(error(&Json::Array(written.to_vec())));
        }
        let whole = |axis: usize| Key::Part { part: Part::all(shape.dims()[axis]), dropped: false };
        let (mut keys, mut at) = (Vec::new(), 0);
        for key in written {
            if key.is_null() {
                keys.push(Key::New);
            } else if is(key, "__ellipsis__") {
                for _ in 0..shape.rank() - of_axes {
                    keys.push(whole(at));
                    at += 1;
                }
            } else {
                let extent = *shape.dims().get(at).ok_or_else(|| error(key))?;
                keys.push(part(key, extent).ok_or_else(|| error(key))?);
                at += 1;
            }
        }
        keys.extend((at..shape.rank()).map(whole));
        Ok(keys)
    }
}

/// Returns what a number or a slice names of an axis.
fn part(key: &Json, extent: usize) -> Option<Key> {
    let n = extent as i64;
    if let Some(index) = key.as_i64() {
        let index = if index < 0 { index.checked_add(n)? } else { index };
        let part = Part::new(usize::try_from(index).ok().filter(|i| *i < extent)?, 1);
        return Some(Key::Part { part, dropped: true });
    }
    let slice = if key["class_name"] == "__slice__" { &key["config"] } else { key };
    let bound = |name: &str| match &slice[name] {
        Json::Null => Some(None),
        value => value.as_i64().map(Some),
    };
    slice.as_object()?;
    let (start, stop, step) = (bound("start")?, bound("stop")?, bound("step")?.unwrap_or(1));
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let held = |bound: Option<i64>, default: i64| match bound {
        None => default,
        Some(b) if b < 0 => b.saturating_add(n).clamp(low, high),
        Some(b) => b.clamp(low, high),
    };
    let (start, stop) = if step > 0 { (held(start, 0), held(stop, n)) } else { (held(start, n - 1), held(stop, -1)) };
    let size = usize::try_from((stop - start).checked_div(step)? + i64::from((stop - start) % step != 0)).ok()?;
    let part = Part { start: usize::try_from(start).ok()?, size, step: isize::try_from(step).ok()? };
    Some(Key::Part { part, dropped: false })
}
