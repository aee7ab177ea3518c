//! Column sums of the tile of a workgroup, which the core through workgroup memory leaves beside its result.
//!
//! A lane adds up its own rows in registers; lanes that share columns are then joined in a tree, in the workgroup memory in which
//! the operands have been staged.

use super::product::Product;
use crate::kernels::{
    column_parts::PartSums,
    language::{Buffer, Expr, Kernel, Type},
};

const VEC4: Type = Type { width: 4, ..Type::F32 };

/// How the lanes of a workgroup lie on its tile.
pub(super) struct Tile {
    /// Rows of the tile.
    pub(super) m: usize,
    /// Lanes of the workgroup, and how many of them have sums.
    pub(super) lanes: [usize; 2],
    /// Lanes side by side, which have other columns.
    pub(super) across: usize,
    /// Columns that are read and written as one vector.
    pub(super) width: usize,
    pub(super) first_row: Expr,
    /// The values of a lane, by row and vector of columns.
    pub(super) sums: Vec<Vec<Expr>>,
    /// Workgroup memory for a vector of each lane, twice.
    pub(super) staged: [Buffer; 2],
}

/// The sums under way.
pub(super) struct Parts<'p, 'a> {
    product: &'p Product<'a>,
    to: &'p PartSums,
    tile: Tile,
    /// Whether each row of a lane exists.
    rows: Vec<Expr>,
    /// Sums of products by vector of columns, and the number that is taken off the other factor, by column.
    products: Vec<Expr>,
    centres: Vec<Expr>,
    totals: Option<Buffer>,
}

impl<'p, 'a> Parts<'p, 'a> {
    /// Returns the sums of no rows, of a lane's columns.
    pub(super) fn new(
        k: &mut Kernel,
        product: &'p Product<'a>,
        to: &'p PartSums,
        tile: Tile,
        columns: &[Expr],
    ) -> Self {
        let (mut products, mut centres) = (Vec::new(), Vec::new());
        if let Some([_, centre]) = &to.centred {
            products = (0..tile.sums[0].len()).map(|v| k.var(format!("products{v}"), VEC4.zero())).collect();
            centres = (columns.iter().enumerate())
                .map(|(j, column)| k.let_(format!("centre{j}"), centre.at(column / tile.width)))
                .collect();
        }
        let totals = to.centred.is_none().then(|| k.workgroup("totals", Type::F32, tile.lanes[0] as u64));
        Parts { product, to, tile, rows: Vec::new(), products, centres, totals }
    }

    /// Adds the product of a value in column `j` of a lane, or vector of columns, which is element `index` of the result.
    pub(super) fn add_product(&self, k: &mut Kernel, j: usize, value: &Expr, index: &Expr) {
        if let Some([x, _]) = &self.to.centred {
            let vector = self.tile.width == 4;
            let sum = if vector { self.products[j].clone() } else { self.products[j / 4].component(j % 4) };
            k.add(&sum, value * (x.at(index) - &self.centres[j]));
        }
    }

    /// Notes whether the next row of a lane exists.
    pub(super) fn row(&mut self, inside: &Expr) {
        self.rows.push(inside.clone());
    }

    /// Writes the parts; `columns` are those of a lane, and whether they exist.
    pub(super) fn write(&self, k: &mut Kernel, columns: &[(Expr, Expr)]) {
        let Tile { m, across, first_row, sums, .. } = &self.tile;
        let row_tiles = (self.product.rows.extent.expr() + (m - 1)) / *m;
        let part = k.let_("part", Product::batch_index() * row_tiles + first_row / *m);
        let all = self.product.columns.extent.expr();
        let count = self.rows.iter().map(|row| row.select(1.0, 0.0)).reduce(|a, b| a + b).unwrap_or(0.0.into());
        let count = k.let_("n_rows", count);
        for v in 0..sums[0].len() {
            let of_rows = |value: &dyn Fn(usize) -> Expr| {
                let row = |(i, inside): (usize, &Expr)| inside.select(value(i), VEC4.zero());
                self.rows.iter().enumerate().map(row).reduce(|a, b| a + b).unwrap_or(VEC4.zero())
            };
            let first = of_rows(&|i| sums[i][v].clone());
            let [first, second] = match self.products.get(v) {
                Some(products) => [first, products.clone()],
                None => {
                    let mean = k.let_(format!("mean{v}"), first / VEC4.splat(count.max(1.0)));
                    let deviation = of_rows(&|i| (&sums[i][v] - &mean) * (&sums[i][v] - &mean));
                    [mean, deviation]
                }
            };
            let own = [k.var(format!("first{v}"), first), k.var(format!("second{v}"), second)];
            let total = k.var(format!("total{v}"), &count);
            self.tree(k, v, &own, &total);
            let lane = k.lane();
            k.if_(lane.less(*across), |k| {
                let per_vector = 4 / self.tile.width;
                for j in 0..per_vector {
                    let (column, inside) = &columns[per_vector * v + j];
                    k.if_(inside, |k| {
                        // Of moments there are the rows too.
                        let values: Vec<Expr> = match &self.totals {
                            None => own.to_vec(),
                            Some(_) => own.iter().cloned().chain([VEC4.splat(&total)]).collect(),
                        };
                        let n_values = values.len();
                        for (n, value) in values.iter().enumerate() {
                            let value = if self.tile.width == 4 { value.clone() } else { value.component(j) };
                            k.store(&self.to.to, ((&part * n_values + n) * &all + column) / self.tile.width, value);
                        }
                    });
                }
            });
        }
    }

    /// Joins what the lanes with equal columns have; the first of them gets all.
    fn tree(&self, k: &mut Kernel, v: usize, own: &[Expr; 2], total: &Expr) {
        let Tile { lanes, across, staged, .. } = &self.tile;
        let lane = k.lane();
        let share = |k: &mut Kernel| {
            staged.iter().zip(own).for_each(|(to, value)| k.store(to, &lane, value));
            self.totals.iter().for_each(|totals| k.store(totals, &lane, total));
        };
        k.barrier();
        share(k);
        let mut half = lanes[1] / 2;
        while half >= *across {
            k.barrier();
            k.if_(lane.less(half), |k| {
                let other = k.let_(format!("other{v}_{half}"), &lane + half);
                let [first, second] = [0, 1].map(|n| k.let_(format!("other{v}_{half}_{n}"), staged[n].at(&other)));
                match &self.totals {
                    None => own.iter().zip([first, second]).for_each(|(own, other)| k.add(own, other)),
                    Some(totals) => {
                        let more = k.let_(format!("more{v}_{half}"), totals.at(&other));
                        let delta = k.let_(format!("delta{v}_{half}"), first - &own[0]);
                        let part = k.let_(format!("part{v}_{half}"), &more / (total + &more).max(1.0));
                        let [whole, share] = [total * &part, part.clone()].map(|e| VEC4.splat(e));
                        k.add(&own[1], second + &delta * &delta * whole);
                        k.add(&own[0], delta * share);
                        k.add(total, more);
                    }
                }
                share(k);
            });
            half /= 2;
        }
    }
}
