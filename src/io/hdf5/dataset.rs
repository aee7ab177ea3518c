//! Datasets: layouts, filters, chunks.

use super::*;

impl<'a> File<'a> {
    fn layout(object: &Object<'a>) -> Result<Layout<'a>, FormatError> {
        let what = "a dataset's layout";
        let contents = Self::message(object, 0x08).ok_or_else(|| broken(what, "one", "none"))?;
        let mut r = Reader::new(contents);
        let (version, class) = (number(&mut r, 1, what)?, number(&mut r, 1, what)?);
        match (version, class) {
            (3 | 4, 0) => {
                let size = number(&mut r, 2, what)?;
                Ok(Layout::Inside(r.take(size, what)?))
            }
            (3 | 4, 1) => Ok(Layout::Whole { at: number(&mut r, 8, what)?, size: number(&mut r, 8, what)? }),
            (3, 2) => {
                let rank = number(&mut r, 1, what)?;
                let tree = number(&mut r, 8, what)?;
                let dims = (1..rank).map(|_| number(&mut r, 4, what)).collect::<Result<_, _>>()?;
                Ok(Layout::Chunks { tree, dims })
            }
            (4, 2) => {
                let (flags, rank, width) =
                    (number(&mut r, 1, what)?, number(&mut r, 1, what)?, number(&mut r, 1, what)?);
                if width > 8 {
                    return Err(broken(what, "extents of at most 8 bytes", width));
                }
                let dims = (0..rank).map(|_| number(&mut r, width, what)).collect::<Result<Vec<_>, _>>()?;
                let index = number(&mut r, 1, what)?;
                if index != 1 {
                    return Err(unsupported(what, format!("chunks under an index of kind {index}")));
                }
                let size = if flags & 2 != 0 { number(&mut r, 8, what)? } else { UNDEFINED };
                r.take(if flags & 2 != 0 { 4 } else { 0 }, what)?;
                let dims = dims[..dims.len().saturating_sub(1)].to_vec();
                Ok(Layout::One { at: number(&mut r, 8, what)?, size, dims })
            }
            _ => Err(unsupported(what, format!("version {version}, class {class}"))),
        }
    }

    /// Returns the identifiers of a dataset's filters, in order.
    fn filters(object: &Object<'a>) -> Result<Vec<u64>, FormatError> {
        let Some(contents) = Self::message(object, 0x0b) else { return Ok(Vec::new()) };
        let what = "a dataset's filters";
        let mut r = Reader::new(contents);
        let (version, n) = (number(&mut r, 1, what)?, number(&mut r, 1, what)?);
        r.take(if version == 1 { 6 } else { 0 }, what)?;
        let mut filters = Vec::new();
        for _ in 0..n {
            let id = number(&mut r, 2, what)?;
            let name = if version == 1 || id >= 256 { number(&mut r, 2, what)? } else { 0 };
            r.take(2, what)?;
            let values = number(&mut r, 2, what)?;
            r.take(if version == 1 { name.next_multiple_of(8) } else { name }, what)?;
            r.take(4 * if version == 1 { values.next_multiple_of(2) } else { values }, what)?;
            match id {
                1..=3 => filters.push(id),
                _ => return Err(unsupported(what, format!("filter {id}"))),
            }
        }
        Ok(filters)
    }

    /// Returns a dataset: f64 becomes f32; integers of 8, 16 and 64 bits become i32 if they fit; bytes stay bytes.
    pub fn dataset(&self, path: &str) -> Result<HostTensor, FormatError> {
        let what = format!("`{path}`");
        let object = self.object(path)?;
        // Several messages are searched for, each from the start.
        self.budget.work(&what, 8 * object.len() as u64)?;
        let part = |kind: u16| Self::message(object, kind).ok_or_else(|| broken(&what, "type and extents", "none"));
        let (ty, dims) = (Type::read(part(0x03)?)?, extents(part(0x01)?)?);
        let layout = Self::layout(object)?;
        let cap = match &layout {
            Layout::Inside(bytes) => bytes.len() as u64,
            Layout::Whole { .. } => self.bytes.len() as u64,
            _ => (self.bytes.len() as u64).saturating_mul(MAX_EXPANSION),
        };
        let size = crate::io::checked_bytes(&what, &dims, ty.bytes(), cap)?;
        let raw: Cow<[u8]> = match layout {
            Layout::Inside(bytes) => bytes[..size].into(),
            Layout::Whole { at: UNDEFINED, .. } => {
                self.budget.take(&what, size as u64)?;
                vec![0; size].into()
            }
            Layout::Whole { at, size: stored } if stored >= size as u64 => {
                self.at(at, &what)?.take(size as u64, &what)?.into()
            }
            Layout::Whole { size: stored, .. } => {
                return Err(FormatError::new(Flaw::ByteCount, what, format!("{size} bytes"), stored));
            }
            Layout::Chunks { tree, dims: chunk } => {
                let chunks = self.chunks(tree, chunk.len())?;
                self.assemble(&what, object, &dims, &chunk, ty.bytes(), chunks)?.into()
            }
            Layout::One { at, size, dims: chunk } => {
                let whole = chunk.iter().try_fold(ty.bytes(), |n, &d| n.checked_mul(d)).unwrap_or(u64::MAX);
                let stored = if size == UNDEFINED { whole } else { size };
                let origin = vec![0; chunk.len()];
                self.assemble(&what, object, &dims, &chunk, ty.bytes(), vec![(origin, at, stored)])?.into()
            }
        };
        let count = size as u64 / ty.bytes();
        self.budget.take(
            &what,
            match ty {
                Type::Float(2) | Type::Brain => 2 * count,
                Type::Int { bytes: 1, signed: false } => count,
                // Those that are checked are collected in a growing list.
                Type::Int { bytes: 8, .. } => 12 * count,
                _ => 4 * count,
            },
        )?;
        let shape: Vec<usize> = dims.iter().map(|&d| d as usize).collect();
        let eight = || raw.chunks_exact(8).map(|c| <[u8; 8]>::try_from(c).unwrap_or_default());
        let tensor = match ty {
            Type::Float(4) => HostTensor::from_bytes(shape, DType::F32, &raw),
            Type::Float(2) => HostTensor::from_bytes(shape, DType::F16, &raw),
            Type::Brain => self.brain(path, shape, &raw)?,
            Type::Float(_) => HostTensor::f32(shape, eight().map(|w| f64::from_le_bytes(w) as f32).collect()),
            Type::Int { .. } => integers(&what, ty, shape, &raw)?,
            Type::Text(_) | Type::Texts => return Err(unsupported(&what, "strings instead of numbers")),
        };
        if let Cow::Owned(_) = raw {
            self.budget.give(size as u64);
        }
        tensor.map_err(|e| FormatError::new(Flaw::ByteCount, what, "elements that fit the extents", e))
    }

    /// Returns a dataset of two opaque bytes, if Keras says in an attribute that they are bfloat16.
    fn brain(&self, path: &str, shape: Vec<usize>, raw: &[u8]) -> Result<Converted, FormatError> {
        match self.attributes(path)?.texts("dtype")? {
            Some(dtype) if dtype == ["bfloat16"] => Ok(HostTensor::from_bytes(shape, DType::BF16, raw)),
            _ => Err(unsupported(&format!("`{path}`"), "opaque elements")),
        }
    }

    /// Returns first element, address and stored bytes of each chunk of a tree.
    fn chunks(&self, tree: u64, rank: usize) -> Result<Vec<(Vec<u64>, u64, u64)>, FormatError> {
        let what = "a dataset's chunks";
        let mut chunks = Vec::new();
        let mut visited = HashSet::new();
        let mut stack = if tree == UNDEFINED { Vec::new() } else { vec![tree] };
        while let Some(at) = stack.pop() {
            if !visited.insert(at) || visited.len() > MAX_OBJECTS {
                return Err(broken(what, "a tree", "a cycle"));
            }
            let mut r = self.at(at, what)?;
            if r.take(4, what)? != b"TREE" || number(&mut r, 1, what)? != 1 {
                return Err(broken(what, "a tree of chunks", "other bytes"));
            }
            let level = number(&mut r, 1, what)?;
            let n = number(&mut r, 2, what)?;
            r.take(16, what)?;
            for _ in 0..n {
                let stored = number(&mut r, 4, what)?;
                r.take(4, what)?;
                let origin = (0..rank).map(|_| number(&mut r, 8, what)).collect::<Result<Vec<_>, _>>()?;
                r.take(8, what)?;
                let child = number(&mut r, 8, what)?;
                if level > 0 {
                    self.budget.push(what, &mut stack, child)?;
                } else if chunks.len() < MAX_CHUNKS {
                    self.budget.take(what, 8 * rank as u64)?;
                    self.budget.push(what, &mut chunks, (origin, child, stored))?;
                } else {
                    return Err(FormatError::new(Flaw::TooLarge, what, format!("at most {MAX_CHUNKS}"), "more"));
                }
            }
        }
        Ok(chunks)
    }

    /// Returns a dataset assembled from its chunks.
    fn assemble(
        &self,
        what: &str,
        object: &Object<'a>,
        dims: &[u64],
        chunk: &[u64],
        width: u64,
        chunks: Vec<(Vec<u64>, u64, u64)>,
    ) -> Result<Vec<u8>, FormatError> {
        let filters = Self::filters(object)?;
        if chunk.len() != dims.len() || chunk.contains(&0) {
            return Err(broken(what, "chunks with the dataset's axes", format!("{chunk:?} of {dims:?}")));
        }
        // The stored bytes limit the memory.
        let stored: u64 = chunks.iter().map(|c| c.2).fold(0, u64::saturating_add);
        let expansion = if filters.contains(&1) { MAX_EXPANSION } else { 1 };
        let max = stored.saturating_mul(expansion);
        let size = crate::io::checked_bytes(what, dims, width, max)?;
        let chunk_bytes = crate::io::checked_bytes(what, chunk, width, max)?;
        self.budget.take(what, size as u64)?;
        let mut out = vec![0u8; size];
        let rows = chunk_bytes as u64 / width / chunk.last().copied().unwrap_or(1);
        for (origin, at, stored) in chunks {
            let packed = self.at(at, what)?.take(stored, what)?;
            // A chunk's bytes before and after a filter; it is copied row by row, each located by its axes.
            let held = 3 * (stored + chunk_bytes as u64);
            self.budget.take(what, held)?;
            self.budget.work(what, rows.saturating_mul(4 * chunk.len() as u64 + 4))?;
            let bytes = unpack(what, packed, &filters, chunk_bytes, width as usize)?;
            place(&mut out, dims, &bytes, chunk, &origin, width as usize)
                .ok_or_else(|| broken(what, "chunks inside the dataset", format!("one at {origin:?}")))?;
            self.budget.give(held);
        }
        Ok(out)
    }
}

/// A tensor, or an error if its elements do not fit its extents.
type Converted = Result<HostTensor, crate::tensor::TensorError>;

/// Returns whole numbers: bytes as they are, others as i32 or u32, which must fit.
fn integers(what: &str, ty: Type, shape: Vec<usize>, raw: &[u8]) -> Result<Converted, FormatError> {
    let eight = || raw.chunks_exact(8).map(|c| <[u8; 8]>::try_from(c).unwrap_or_default());
    let integer = |n: Option<i32>| n.ok_or_else(|| unsupported(what, "integers of more than 32 bits"));
    let i32s = |v: Vec<i32>| HostTensor::i32(shape.clone(), v);
    Ok(match ty {
        Type::Int { bytes: 1, signed: false } => HostTensor::u8(shape.clone(), raw.to_vec()),
        Type::Int { bytes: 4, signed: true } => HostTensor::from_bytes(shape.clone(), DType::I32, raw),
        Type::Int { bytes: 4, signed: false } => HostTensor::from_bytes(shape.clone(), DType::U32, raw),
        Type::Int { bytes: 1, .. } => i32s(raw.iter().map(|&b| i32::from(b as i8)).collect()),
        Type::Int { bytes: 2, signed } => {
            let words = raw.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
            i32s(words.map(|w| if signed { i32::from(w as i16) } else { i32::from(w) }).collect())
        }
        Type::Int { signed: true, .. } => {
            let fit = |w| integer(i32::try_from(i64::from_le_bytes(w)).ok());
            i32s(eight().map(fit).collect::<Result<_, _>>()?)
        }
        _ => {
            let fit = |w| integer(i32::try_from(u64::from_le_bytes(w)).ok());
            i32s(eight().map(fit).collect::<Result<_, _>>()?)
        }
    })
}

/// Undoes the filters of a chunk.
fn unpack(what: &str, packed: &[u8], filters: &[u64], size: usize, width: usize) -> Result<Vec<u8>, FormatError> {
    let mut bytes = packed.to_vec();
    for filter in filters.iter().rev() {
        match filter {
            1 => {
                let mut out = Vec::new();
                let unpacked = flate2::read::ZlibDecoder::new(&bytes[..]).take(size as u64 + 1).read_to_end(&mut out);
                unpacked.map_err(|e| FormatError::new(Flaw::Compression, what, "intact chunks", e))?;
                bytes = out;
            }
            2 => {
                // Byte k of all elements was stored together.
                let n = bytes.len() / width.max(1);
                bytes = (0..n * width).map(|i| bytes[i % width * n + i / width]).collect();
            }
            // A checksum follows the bytes.
            _ => bytes.truncate(bytes.len().saturating_sub(4)),
        }
    }
    match bytes.len() == size {
        true => Ok(bytes),
        false => Err(FormatError::new(Flaw::ByteCount, what, format!("chunks of {size} bytes"), bytes.len())),
    }
}

/// Copies the part of a chunk that is inside the dataset, row by row; `None` if it starts outside.
fn place(out: &mut [u8], dims: &[u64], chunk: &[u8], extents: &[u64], origin: &[u64], width: usize) -> Option<()> {
    if origin.iter().zip(dims).any(|(o, d)| o >= d) {
        return None;
    }
    let inside: Vec<u64> = (0..dims.len()).map(|a| extents[a].min(dims[a] - origin[a])).collect();
    let row = inside.last().copied().unwrap_or(1) as usize * width;
    let rows: u64 = inside[..inside.len().saturating_sub(1)].iter().product();
    for i in 0..rows {
        let (mut rest, mut from, mut to) = (i, 0u64, 0u64);
        let (mut from_stride, mut to_stride) = (1u64, 1u64);
        for axis in (0..dims.len()).rev() {
            let last = axis + 1 == dims.len();
            let at = if last { 0 } else { rest % inside[axis] };
            rest = if last { rest } else { rest / inside[axis] };
            from += at * from_stride;
            to += (at + origin[axis]) * to_stride;
            from_stride *= extents[axis];
            to_stride *= dims[axis];
        }
        let (from, to) = (from as usize * width, to as usize * width);
        out.get_mut(to..to + row)?.copy_from_slice(chunk.get(from..from + row)?);
    }
    Some(())
}
