//! A kernel as data: what it binds, its functions and statements; and the launch that is made of it.

use super::expr::{Expr, Type, matched};
use crate::{
    graph::Slot,
    tensor::{Count, DType},
};

/// A statement.
#[derive(Debug)]
pub(super) enum Stmt {
    Let(String, Expr),
    Var(String, Type, Option<Expr>),
    /// `target operator= value`.
    Assign(Expr, &'static str, Expr),
    If(Expr, Vec<Stmt>),
    /// Variable, first value, end, step, body.
    For(String, [Expr; 3], Vec<Stmt>),
    Return(Option<Expr>),
    Barrier,
}

/// How a buffer's elements lie in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Layout {
    /// One by one.
    Scalars(DType),
    /// 32-bit floats as vectors of 2 or 4; with `words` as 64-bit words. A vector of 1 is a scalar.
    Vectors {
        /// How many floats a vector has.
        width: usize,
        /// Whether it is read and written as words.
        words: bool,
    },
    /// 32-bit floats as 64-bit words of two, read one pair at a time.
    Pairs,
    /// A uniform buffer of so many 32-bit floats.
    Uniform(u64),
}

/// A buffer that a kernel binds, or an array that its workgroups or lanes have.
#[derive(Debug, Clone)]
pub struct Buffer {
    name: String,
    layout: Layout,
}

impl Buffer {
    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn words(&self, index: Expr) -> Expr {
        Expr::name(&self.name, Type::U64).element(index, Type::U64)
    }

    /// Returns element `index` as f32: a vector, where elements are vectors.
    pub fn at(&self, index: impl Into<Expr>) -> Expr {
        let index = index.into();
        let float = Type::F32;
        match self.layout {
            Layout::Scalars(dtype) => converted(&self.name, dtype, &index),
            Layout::Vectors { width, words: true } if width > 1 => {
                Expr::call(&format!("floats{width}"), float.vector(width), [self.words(index)])
            }
            Layout::Vectors { width, .. } => Expr::name(&self.name, float).element(index, float.vector(width)),
            Layout::Pairs => self.pair(&index).at(index & 1u32),
            Layout::Uniform(_) => Expr::call(&format!("{}_at", self.name), float, [index]),
        }
    }

    fn width(&self) -> usize {
        if let Layout::Vectors { width, .. } = self.layout { width } else { 1 }
    }

    /// Returns how elements lie in memory.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the elements `index`, an even number, and `index + 1` as a vector.
    pub fn pair(&self, index: impl Into<Expr>) -> Expr {
        Expr::call("floats2", Type::F32.vector(2), [self.words(index.into() >> 1u32)])
    }

    /// Returns element `index`, or 0 where `inside` does not hold; with `pair` as [`Buffer::pair`].
    pub fn guarded(&self, index: &Expr, inside: &Expr, pair: bool) -> Expr {
        let value = if pair { self.pair(index) } else { self.at(index) };
        let zero = if value.ty().width == 1 { Expr::from(0.0) } else { value.ty().zero() };
        inside.select(value, zero)
    }
}

/// Returns element `index` of an array of `dtype` as f32; several elements share a word of 32 bits.
fn converted(name: &str, dtype: DType, index: &Expr) -> Expr {
    let element = |index: Expr, ty| Expr::name(name, ty).element(index, ty);
    let bits = |shift: u32| element(index >> shift, Type::U32);
    match dtype {
        DType::F32 => element(index.clone(), Type::F32),
        DType::I32 => element(index.clone(), Type::I32).f32(),
        DType::U32 => element(index.clone(), Type::U32).f32(),
        DType::U8 => (bits(2) >> ((index & 3u32) * 8u32) & 255u32).f32(),
        DType::F16 => Expr::call("unpack2x16float", Type::F32.vector(2), [bits(1)]).at(index & 1u32),
        DType::BF16 => Expr::call("bitcast<f32>", Type::F32, [(bits(1) >> ((index & 1u32) * 16u32)) << 16u32]),
    }
}

/// What a buffer is bound to.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) buffer: Buffer,
    pub(super) slot: Slot,
    pub(super) written: bool,
}

/// A function of a kernel.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) parameters: Vec<(String, Type)>,
    pub(super) result: Type,
    pub(super) body: Vec<Stmt>,
}

/// A kernel that is being written: statements are added in order, loops and branches by closures.
///
/// Binding 0 is the step record; buffers are bound in the order in which they are declared. [`Kernel::launch`] makes a launch of it.
///
/// ```
/// use hubel::{graph::{Grid, Slot}, kernels::{Kernel, Layout}, tensor::{Count, DType}};
/// let mut k = Kernel::new("double", 64);
/// let x = k.bind("x", Layout::Scalars(DType::F32), Slot::input(0));
/// let y = k.bind_result("y", Layout::Scalars(DType::F32), Slot::output(0));
/// let elements = Count { fixed: 0, per_sample: 10 };
/// let i = k.item(elements);
/// k.store(&y, &i, x.at(&i) * 2.0);
/// let launch = k.launch(Grid::new(elements, 64));
/// assert!(launch.source.contains("y[i] = x[i] * 2.0;"));
/// ```
#[derive(Debug)]
pub struct Kernel {
    pub(in crate::kernels) name: String,
    /// Lanes of a workgroup.
    pub(super) lanes: usize,
    /// The number of its first binding.
    pub(super) first: usize,
    pub(super) bindings: Vec<Binding>,
    /// Constants that a launch gives.
    pub(in crate::kernels) constants: Vec<(&'static str, Type, f64)>,
    /// Extents of the file that the declarations are for.
    given: Vec<(&'static str, u32)>,
    /// Arrays in workgroup memory.
    pub(super) shared: Vec<(String, Type, u64)>,
    pub(super) functions: Vec<Function>,
    /// The block that is being written.
    pub(super) body: Vec<Stmt>,
}

impl Kernel {
    /// Returns a kernel without statements, whose workgroups have `lanes` invocations.
    pub fn new(name: impl Into<String>, lanes: usize) -> Self {
        Kernel {
            name: name.into(),
            lanes,
            first: 1,
            bindings: Vec::new(),
            constants: Vec::new(),
            given: Vec::new(),
            shared: Vec::new(),
            functions: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Returns declarations for a kernel from a file that binds `slots` buffers and reads these extents.
    pub(in crate::kernels) fn behind(slots: usize, extents: &[(&'static str, u64)]) -> Self {
        let given = extents.iter().map(|&(name, value)| (name, u32::try_from(value).unwrap_or(u32::MAX))).collect();
        Kernel { first: slots + 1, given, ..Kernel::new("", 1) }
    }

    /// Returns the components of the widest vectors that are bound.
    pub(in crate::kernels) fn width(&self) -> usize {
        self.bindings.iter().map(|b| b.buffer.width()).max().unwrap_or(1)
    }

    /// Returns what the buffers are bound to, the extents last.
    pub(in crate::kernels) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let extents = (!self.extents().is_empty()).then_some(Slot::Extents);
        self.bindings.iter().map(|b| b.slot.clone()).chain(extents)
    }

    /// Returns the extents that the kernel reads, in the order in which they first appear.
    pub(in crate::kernels) fn extents(&self) -> Vec<(&'static str, u32)> {
        let mut all = self.given.clone();
        self.functions.iter().map(|f| &f.body).chain([&self.body]).for_each(|body| extents(body, &mut all));
        all
    }

    /// Binds a buffer that is read, behind those that are bound.
    pub fn bind(&mut self, name: impl Into<String>, layout: Layout, slot: Slot) -> Buffer {
        let buffer = Buffer { name: name.into(), layout };
        self.bindings.push(Binding { buffer: buffer.clone(), slot, written: false });
        buffer
    }

    /// Binds a buffer that is written, behind those that are bound.
    pub fn bind_result(&mut self, name: impl Into<String>, layout: Layout, slot: Slot) -> Buffer {
        let buffer = Buffer { name: name.into(), layout };
        self.bindings.push(Binding { buffer: buffer.clone(), slot, written: true });
        buffer
    }

    /// Declares a constant that the launch gives, so that kernels that differ in it alone have one text.
    pub fn constant(&mut self, name: &'static str, ty: Type, value: f64) -> Expr {
        self.constants.push((name, ty, value));
        Expr::name(name, ty)
    }

    /// Declares an array of `elements` in workgroup memory.
    pub fn workgroup(&mut self, name: impl Into<String>, ty: Type, elements: u64) -> Buffer {
        let buffer = Buffer { name: name.into(), layout: Layout::Vectors { width: ty.width, words: false } };
        self.shared.push((buffer.name.clone(), ty, elements));
        buffer
    }

    /// Declares a function, whose `body` gets its parameters and gives its result.
    pub fn function(
        &mut self,
        name: &str,
        parameters: &[(&str, Type)],
        result: Type,
        body: impl FnOnce(&mut Kernel, &[Expr]) -> Expr,
    ) {
        let arguments: Vec<Expr> = parameters.iter().map(|(name, ty)| Expr::name(*name, *ty)).collect();
        let body = self.block(|k| {
            let value = body(k, &arguments);
            k.body.push(Stmt::Return(Some(value)));
        });
        let parameters = parameters.iter().map(|(name, ty)| ((*name).to_owned(), *ty)).collect();
        self.functions.push(Function { name: name.to_owned(), parameters, result, body });
    }

    /// Returns the number of the workgroup.
    pub fn workgroup_index(&self) -> Expr {
        let [x, y] = ["id.x", "id.y"].map(|name| Expr::name(name, Type::U32));
        x + y * Expr::name("counts.x", Type::U32)
    }

    /// Returns the number of the invocation in its workgroup.
    pub fn lane(&self) -> Expr {
        Expr::name("lane", Type::U32)
    }

    /// Returns the number of the invocation, `i`; past `items` invocations return.
    pub fn item(&mut self, items: Count) -> Expr {
        let i = self.let_("i", self.workgroup_index() * self.lanes + self.lane());
        self.return_if(i.at_least(Extent::new(["items", "items_per_sample"], items).expr()));
        i
    }

    /// Returns the number of the workgroup, `i`; past `items` workgroups return.
    pub fn group(&mut self, items: Count) -> Expr {
        let i = self.let_("i", self.workgroup_index());
        self.return_if(i.at_least(Extent::new(["items", "items_per_sample"], items).expr()));
        i
    }

    /// Names a value.
    pub fn let_(&mut self, name: impl Into<String>, value: impl Into<Expr>) -> Expr {
        let (name, value) = (name.into(), value.into());
        if value.known().is_some() || value.known_bool().is_some() {
            return value;
        }
        let named = Expr::name(&name, value.ty());
        self.body.push(Stmt::Let(name, value));
        named
    }

    /// Returns the name of a value, which it gets if it has none.
    pub(super) fn named(&mut self, name: &str, value: &Expr) -> String {
        if !value.is_name() {
            self.body.push(Stmt::Let(name.to_owned(), value.clone()));
            return name.to_owned();
        }
        value.to_string()
    }

    /// Declares a variable with its first value.
    pub fn var(&mut self, name: impl Into<String>, value: impl Into<Expr>) -> Expr {
        let (name, value) = (name.into(), value.into());
        let variable = Expr::name(&name, value.ty());
        self.body.push(Stmt::Var(name, value.ty(), Some(value)));
        variable
    }

    /// Declares a variable that is set before it is read.
    pub fn unset(&mut self, name: impl Into<String>, ty: Type) -> Expr {
        let name = name.into();
        let variable = Expr::name(&name, ty);
        self.body.push(Stmt::Var(name, ty, None));
        variable
    }

    /// Sets a variable.
    pub fn set(&mut self, variable: &Expr, value: impl Into<Expr>) {
        self.body.push(Stmt::Assign(variable.clone(), "=", value.into()));
    }

    /// Adds to a variable.
    pub fn add(&mut self, variable: &Expr, value: impl Into<Expr>) {
        self.body.push(Stmt::Assign(variable.clone(), "+=", value.into()));
    }

    /// Stores an element; of a buffer of vectors, a vector.
    pub fn store(&mut self, buffer: &Buffer, index: impl Into<Expr>, value: impl Into<Expr>) {
        let value = value.into();
        let target = Expr::name(&buffer.name, value.ty()).element(index, value.ty());
        let value = match buffer.layout {
            Layout::Vectors { width, words: true } if width > 1 => {
                Expr::call(&format!("words{width}"), Type::U64, [value])
            }
            _ => value,
        };
        self.body.push(Stmt::Assign(target, "=", value));
    }

    /// Returns from the invocation where `condition` holds.
    pub fn return_if(&mut self, condition: Expr) {
        self.body.push(Stmt::If(condition, vec![Stmt::Return(None)]));
    }

    /// Writes what runs where `condition` holds; where it is known to hold, without a block.
    pub fn if_(&mut self, condition: impl Into<Expr>, body: impl FnOnce(&mut Kernel)) {
        let condition = condition.into();
        let body = self.block(body);
        match condition.known_bool() {
            Some(true) => self.body.extend(body),
            Some(false) => {}
            None if body.is_empty() => {}
            None => self.body.push(Stmt::If(condition, body)),
        }
    }

    /// Writes a loop over `first..end` by `step`, whose body gets its variable.
    pub fn for_(
        &mut self,
        variable: impl Into<String>,
        first: impl Into<Expr>,
        end: impl Into<Expr>,
        step: usize,
        body: impl FnOnce(&mut Kernel, &Expr),
    ) {
        let (first, end) = matched(first.into(), end.into());
        let variable = variable.into();
        let value = Expr::name(&variable, first.ty());
        let body = self.block(|k| body(k, &value));
        self.body.push(Stmt::For(variable, [first, end, step.into()], body));
    }

    /// Waits until all invocations of the workgroup are here and see each other's writes to workgroup memory.
    pub fn barrier(&mut self) {
        self.body.push(Stmt::Barrier);
    }

    /// Writes the joining of what `sharers` sets of lanes, all powers of 2, have in workgroup memory: with half of the lanes, a
    /// quarter, … and at last one set, `join` gets how far behind a lane's own share the other lies.
    pub fn tree(&mut self, sharers: u32, join: impl FnOnce(&mut Kernel, &Expr)) {
        let lanes = self.lanes;
        self.for_("level", 1u32, sharers.ilog2() + 1, 1, |k, level| {
            let width = k.let_("width", Expr::from(lanes) >> level);
            k.barrier();
            k.if_(k.lane().less(&width), |k| join(k, &width));
        });
    }

    fn block(&mut self, body: impl FnOnce(&mut Kernel)) -> Vec<Stmt> {
        let outer = std::mem::take(&mut self.body);
        body(self);
        std::mem::replace(&mut self.body, outer)
    }
}

impl Type {
    /// Returns zero, of a vector in all components.
    pub fn zero(self) -> Expr {
        Expr::call(&self.to_string(), self, [])
    }
}

/// Adds the extents that a block reads and that are not there.
pub(super) fn extents(body: &[Stmt], all: &mut Vec<(&'static str, u32)>) {
    for stmt in body {
        match stmt {
            Stmt::Let(_, e) | Stmt::Var(_, _, Some(e)) | Stmt::Return(Some(e)) => e.extents(all),
            Stmt::Assign(target, _, e) => [target, e].iter().for_each(|e| e.extents(all)),
            Stmt::If(condition, body) => {
                condition.extents(all);
                extents(body, all);
            }
            Stmt::For(_, range, body) => {
                range.iter().for_each(|e| e.extents(all));
                extents(body, all);
            }
            Stmt::Var(_, _, None) | Stmt::Return(None) | Stmt::Barrier => {}
        }
    }
}

/// Returns a count for the batch of the step.
pub fn count(count: Count) -> Expr {
    Expr::name("step.n", Type::U32) * count.per_sample + count.fixed
}

/// Returns host number `i` of the step.
pub fn scalar(i: usize) -> Expr {
    let [vector, component] = [i / 4, i % 4].map(|n| n as i32);
    Expr::name("step.scalars", Type::F32).element(vector, Type::F32.vector(4)).at(component)
}

/// A count that a kernel is written for: a constant of its text or, with names, extents of its launch, so that kernels that
/// differ in it alone have one text.
///
/// ```
/// use hubel::{kernels::Extent, tensor::Count};
/// let rows = Extent::new(["rows", "rows_per_sample"], Count { fixed: 0, per_sample: 49 });
/// assert_eq!(rows.expr().to_string(), "step.n * rows_per_sample");
/// let taps = Extent::constant(Count { fixed: 3, per_sample: 0 });
/// assert_eq!(taps.expr().to_string(), "3u");
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    names: Option<[&'static str; 2]>,
    count: Count,
}

impl Extent {
    /// Returns a count that is part of the text.
    pub fn constant(count: Count) -> Extent {
        Extent { names: None, count }
    }

    /// Returns a count that the launch gives, by the names of its fixed part and of its part for each sample.
    pub fn new(names: [&'static str; 2], count: Count) -> Extent {
        Extent { names: Some(names), count }
    }

    /// Returns the value in a kernel.
    pub fn expr(&self) -> Expr {
        let Some([fixed, per_sample]) = self.names else { return count(self.count) };
        let each = || Expr::name("step.n", Type::U32) * Expr::extent(per_sample, self.count.per_sample);
        match (self.count.fixed, self.count.per_sample) {
            (n, 0) => Expr::extent(fixed, n),
            (0, _) => each(),
            (n, _) => each() + Expr::extent(fixed, n),
        }
    }
}

impl std::ops::Deref for Extent {
    type Target = Count;
    fn deref(&self) -> &Count {
        &self.count
    }
}

/// Returns a number as the end of a loop: one that no driver takes for a constant (see `shaders/shared`), unless it is one.
pub fn loop_end(end: impl Into<Expr>) -> Expr {
    let end = end.into();
    if end.known().is_some() { end } else { never_constant(end) }
}

/// Returns a number as one that no driver takes for a constant: it does not unroll a loop that ends there.
pub fn never_constant(number: Expr) -> Expr {
    number * Expr::name("counts.z", Type::U32)
}
