//! The elementwise program that is applied to a kernel's result as it is stored.

use super::{
    broadcast::{Neighbours, floats},
    expr::{Expr, Type},
    kernel::{Buffer, Kernel, Layout},
};
use crate::{
    graph::{Epilogue, Program, Prologue, Slot},
    tensor::{Count, DType},
};

/// How a kernel stores its result: vectors of how many floats, as words or not, and of how many columns its rows are.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// Floats that are stored at once: 1, 2 or 4.
    pub width: usize,
    /// Whether vectors are stored as 64-bit words.
    pub words: bool,
    /// The columns of the result, where the kernel reads what depends on the column alone once for many rows, a vector of columns at
    /// once; else 0.
    pub columns: u64,
}

/// The epilogue of a kernel: a function `epilogue(value, index of the first float, …)`, where there is one.
#[derive(Debug)]
pub struct Finish {
    exists: bool,
    width: usize,
    /// Extras that depend on the column alone.
    columns: Vec<Buffer>,
}

impl Finish {
    /// Binds what an epilogue reads, behind the kernel's buffers, and declares its function if there is one.
    pub fn bind(k: &mut Kernel, epilogue: Option<&Epilogue>, stored: Stored) -> Finish {
        match epilogue {
            None => Finish { exists: false, width: stored.width, columns: Vec::new() },
            Some(_) => Finish::declare(k, epilogue, stored, &|_| None),
        }
    }

    /// Declares the function `epilogue` in any case; `kept` returns what a kernel has kept of its own input, which the epilogue
    /// then need not read again.
    pub(in crate::kernels) fn declare(
        k: &mut Kernel,
        epilogue: Option<&Epilogue>,
        stored: Stored,
        kept: &dyn Fn(usize) -> Option<Expr>,
    ) -> Finish {
        let Stored { width, words, columns } = stored;
        let Some(epilogue) = epilogue else {
            let parameters = [("v", floats(width)), ("i", Type::U32)];
            k.function("epilogue", &parameters, floats(width), |_, arguments| arguments[0].clone());
            return Finish { exists: true, width, columns: Vec::new() };
        };
        let mut read = Vec::new();
        for (n, extra) in epilogue.extras.iter().enumerate() {
            if let Some(value) = epilogue.repeats.get(n).copied().flatten().and_then(kept) {
                read.push(Extra::Kept(value));
                continue;
            }
            let shape = &extra.shape;
            let by_column = columns > 0
                && !shape.is_batched()
                && shape.last() as u64 == columns
                && shape.elements().fixed == columns
                && (width == 1 || (extra.dtype == DType::F32 && columns.is_multiple_of(width as u64)));
            let steps = epilogue.steps.get(n).copied().unwrap_or([1, 1]);
            let neighbours = Neighbours { from: extra, to: &epilogue.shape, width, start: None, steps };
            let layout = match by_column && width > 1 {
                true => Layout::Vectors { width, words },
                false => neighbours.layout(words),
            };
            let buffer = k.bind(format!("extra{n}"), layout, Slot::input(epilogue.first_input + n));
            read.push(if by_column { Extra::Column(buffer, false) } else { Extra::Element(buffer, neighbours) });
        }
        function(k, "epilogue", &epilogue.program, [width, 1], &read);
        Finish { exists: true, width, columns: columns_of(read).into_iter().map(|(buffer, _)| buffer).collect() }
    }

    /// Returns the number of extras that depend on the column alone.
    pub fn n_columns(&self) -> usize {
        self.columns.len()
    }

    /// Returns extra `n` of those that depend on the column alone, of a column, or of a vector of columns by its number.
    pub fn column(&self, n: usize, column: impl Into<Expr>) -> Expr {
        self.columns[n].at(column)
    }

    /// Reads what depends on a column alone, under names that end with `suffix`.
    pub fn columns(&self, k: &mut Kernel, suffix: &str, column: &Expr) -> Vec<Expr> {
        (0..self.n_columns()).map(|n| k.let_(format!("e{n}_{suffix}"), self.column(n, column))).collect()
    }

    /// Returns what is stored of a value whose first float has the flat index `index` in the result.
    pub fn apply(&self, value: impl Into<Expr>, index: impl Into<Expr>, columns: &[Expr]) -> Expr {
        let value = value.into();
        if !self.exists {
            return value;
        }
        Expr::call("epilogue", floats(self.width), [value, index.into()].into_iter().chain(columns.iter().cloned()))
    }
}

/// The prologue of an input of a kernel: a function of a vector and its number.
#[derive(Debug)]
pub struct Loaded {
    function: String,
    width: usize,
    /// Extras that depend on the column alone, or on it and the sample, where the kernel reads them.
    columns: Vec<(Buffer, bool)>,
    n_columns: usize,
    /// The pixels of a sample.
    pixels: usize,
    kept: Option<Buffer>,
}

impl Loaded {
    /// Binds what a prologue reads and declares its function, for the floats that are loaded at once. Where `loaded` says how many
    /// columns there are, the kernel reads what depends on the column alone, and, if it `knows_samples`, what depends on both.
    pub fn bind(k: &mut Kernel, prologue: &Prologue, loaded: Stored, knows_samples: bool) -> Loaded {
        let Stored { width, words, columns: by_kernel } = loaded;
        let name = format!("prologue{}", prologue.input);
        let shape = &prologue.shape;
        let columns = shape.last();
        let mut read = Vec::new();
        for (n, extra) in prologue.extras.iter().enumerate() {
            let is_row = |elements: Count| {
                extra.shape.elements() == elements && extra.shape.last() == columns && columns.is_multiple_of(width)
            };
            let row = columns as u64;
            let fixed = is_row(Count { fixed: row, per_sample: 0 });
            let of_samples = is_row(Count { fixed: 0, per_sample: row }) && extra.shape != *shape;
            let of_samples = of_samples && extra.dtype == DType::F32;
            let neighbours = Neighbours { from: extra, to: shape, width, start: None, steps: [1, 1] };
            let vectors = fixed || (of_samples && knows_samples && by_kernel > 0);
            let layout = if vectors { Layout::Vectors { width, words } } else { neighbours.layout(words) };
            let buffer = k.bind(format!("{name}_extra{n}"), layout, Slot::input(prologue.first_input + n));
            read.push(match vectors {
                true if by_kernel > 0 => Extra::Column(buffer, of_samples),
                true => Extra::Row(buffer, columns),
                false => Extra::Element(buffer, neighbours),
            });
        }
        let vectors = if width > 1 { Layout::Vectors { width, words } } else { Layout::Scalars(DType::F32) };
        let kept = prologue.kept.map(|output| k.bind_result(format!("{name}_kept"), vectors, Slot::output(output)));
        function(k, &name, &prologue.program, [width, width], &read);
        let pixels = shape.rows().per_sample as usize;
        Loaded { function: name, width, columns: columns_of(read), n_columns: columns, pixels, kept }
    }

    /// Returns what depends on a column alone, of a vector of columns by its number, and, where the sample's first such vector is
    /// known, what depends on both.
    pub fn at_column(&self, column: &Expr, first_of_sample: Option<&Expr>) -> Vec<Option<Expr>> {
        let read = |(buffer, of_samples): &(Buffer, bool)| match of_samples {
            false => Some(buffer.at(column)),
            true => first_of_sample.map(|first| buffer.at(first + column)),
        };
        self.columns.iter().map(read).collect()
    }

    /// Reads what depends on a column alone, of a vector of columns by its number.
    pub fn columns(&self, k: &mut Kernel, column: &Expr) -> Vec<Expr> {
        let read = |(n, value)| k.let_(format!("{}_column{n}", self.function), value);
        self.at_column(column, None).into_iter().flatten().enumerate().map(read).collect()
    }

    /// Returns the number of the first vector of columns of a pixel's sample, if anything depends on it.
    pub fn first_of_sample(&self, pixel: &Expr) -> Option<Expr> {
        let of_samples = self.columns.iter().any(|(_, of_samples)| *of_samples);
        of_samples.then(|| pixel / self.pixels * (self.n_columns / self.width))
    }

    /// Returns how many columns the input has.
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// Returns where the kernel is to store what the program makes of what is loaded, if it is.
    pub fn kept(&self) -> Option<&Buffer> {
        self.kept.as_ref()
    }

    /// Returns the program of a vector, or float, that has been loaded: the one of this number.
    pub fn apply(&self, value: Expr, number: &Expr, columns: &[Expr]) -> Expr {
        Expr::call(
            &self.function,
            floats(self.width),
            [value, number.clone()].into_iter().chain(columns.iter().cloned()),
        )
    }
}

enum Extra<'a> {
    /// An argument of the function, which depends on the column alone, or on it and the sample.
    Column(Buffer, bool),
    /// Read by the function, of so many columns the one of an index.
    Row(Buffer, usize),
    /// Read by the function.
    Element(Buffer, Neighbours<'a>),
    Kept(Expr),
}

/// Returns the buffers of what depends on the column, and whether it depends on the sample too.
fn columns_of(read: Vec<Extra>) -> Vec<(Buffer, bool)> {
    let column = |extra| match extra {
        Extra::Column(buffer, of_samples) => Some((buffer, of_samples)),
        _ => None,
    };
    read.into_iter().filter_map(column).collect()
}

/// Declares the function of a program; for vectors by a function of one float. Its index counts `unit` floats as one.
fn function(k: &mut Kernel, name: &str, program: &Program, [width, unit]: [usize; 2], extras: &[Extra]) {
    let of_one = format!("{name}_of");
    if width > 1 {
        let names: Vec<String> = (0..extras.len()).map(|n| format!("a{n}")).collect();
        let one: Vec<(&str, Type)> = names.iter().map(|name| (name.as_str(), Type::F32)).collect();
        let parameters = [&[("v", Type::F32)], &one[..]].concat();
        k.function(&of_one, &parameters, Type::F32, |k, arguments| apply(k, program, arguments));
    }
    let names: Vec<String> = (0..extras.len()).map(|n| format!("e{n}")).collect();
    let columns = extras.iter().zip(&names).filter(|(extra, _)| matches!(extra, Extra::Column(..)));
    let columns: Vec<(&str, Type)> = columns.map(|(_, name)| (name.as_str(), floats(width))).collect();
    let parameters = [&[("v", floats(width)), ("i", Type::U32)], &columns[..]].concat();
    k.function(name, &parameters, floats(width), |k, arguments| {
        let [value, i, columns @ ..] = arguments else { return Expr::from(0.0) };
        let mut columns = columns.iter();
        let read: Vec<Vec<Expr>> = extras
            .iter()
            .zip(&names)
            .map(|(extra, name)| match extra {
                Extra::Column(..) => {
                    let vector = columns.next().unwrap_or(value);
                    (0..width).map(|lane| vector.component(lane)).collect()
                }
                Extra::Row(buffer, columns) => {
                    let vector = k.let_(name, buffer.at(i % (*columns / unit) / (width / unit)));
                    (0..width).map(|lane| vector.component(lane)).collect()
                }
                Extra::Element(buffer, neighbours) => neighbours.read(k, buffer, name, (i, unit)),
                Extra::Kept(vector) => (0..width).map(|lane| vector.component(lane)).collect(),
            })
            .collect();
        let arguments = |lane: usize| {
            let extras = read.iter().map(|lanes| lanes[lane].clone());
            [value.component(lane)].into_iter().chain(extras).collect::<Vec<Expr>>()
        };
        match width {
            1 => apply(k, program, &arguments(0)),
            _ => Expr::vector((0..width).map(|l| Expr::call(&of_one, Type::F32, arguments(l))).collect()),
        }
    });
}

/// Writes an elementwise program and returns its result.
pub fn apply(k: &mut Kernel, program: &Program, inputs: &[Expr]) -> Expr {
    let names: Vec<String> = inputs.iter().enumerate().map(|(n, e)| k.named(&format!("x{n}"), e)).collect();
    let (expressions, result) = program.wgsl(&names);
    for (i, text) in expressions.into_iter().enumerate() {
        k.let_(format!("t{i}"), Expr::text(text, Type::F32));
    }
    Expr::text(result, Type::F32)
}
