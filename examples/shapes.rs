//! Prints the shapes, parameters, multiply-adds and bytes of convolution and pooling layers on a batch of images.
//!
//! `cargo run --release --example shapes -- --images 64 --size 32 --filters 6 --kernel 5 --pool 2` Options that are
//! given several times describe several layers; the last value applies to the rest: `--filters 6 --filters 16 --kernel
//! 5 --pool 2`.

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use hubel::ops::Padding;

#[derive(Debug, Parser)]
#[command(about = "Shapes, parameters, multiply-adds and bytes of convolution and pooling layers")]
struct Options {
    /// Images in the batch
    #[arg(long, default_value_t = 64)]
    images: u64,
    /// Side of the images, or HEIGHTxWIDTH
    #[arg(long, default_value = "32")]
    size: String,
    /// Channels of the images
    #[arg(long, default_value_t = 1)]
    channels: u64,
    /// Filters of each convolution
    #[arg(long, default_values_t = [6])]
    filters: Vec<u64>,
    /// Side of each convolution's kernel
    #[arg(long, default_values_t = [5])]
    kernel: Vec<u32>,
    /// Step of each convolution
    #[arg(long, default_values_t = [1])]
    stride: Vec<u32>,
    /// valid (none), same, or a number of pixels on each side
    #[arg(long, default_values_t = ["valid".to_string()])]
    padding: Vec<String>,
    /// Side and step of the max pooling after each convolution; 0 or 1 for none
    #[arg(long, default_values_t = [2])]
    pool: Vec<u32>,
    /// Leave the biases out
    #[arg(long)]
    no_bias: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

struct Row {
    layer: String,
    shape: [u64; 4],
    parameters: u64,
    macs: u64,
    bytes: u64,
}

impl Row {
    fn new(layer: String, shape: [u64; 4], parameters: u64, per_output: u64) -> Result<Row> {
        let too_large = || format!("{layer}: the numbers do not fit in 64 bits");
        let elements = product(&shape).with_context(too_large)?;
        let macs = product(&[elements, per_output]).with_context(too_large)?;
        let bytes = product(&[elements, 4]).with_context(too_large)?;
        Ok(Row { layer, shape, parameters, macs, bytes })
    }
}

fn product(factors: &[u64]) -> Option<u64> {
    factors.iter().try_fold(1u64, |p, &f| p.checked_mul(f))
}

fn padding(text: &str) -> Result<Padding> {
    Ok(match text {
        "valid" => Padding::Valid,
        "same" => Padding::Same,
        number => {
            let n = number.parse::<u32>().with_context(|| format!("--padding {number}: valid, same or a number"))?;
            Padding::Explicit([[n as usize; 2]; 2])
        }
    })
}

/// Returns the number of windows of side `kernel` along height and width.
fn windows([_, h, w, _]: [u64; 4], kernel: u32, stride: u32, padding: Padding, layer: &str) -> Result<[u64; 2]> {
    let resolved = padding.resolve([h as usize, w as usize], [kernel as usize; 2], [stride as usize; 2]);
    let (_, [h_out, w_out]) = resolved
        .with_context(|| format!("{layer}: wanted sides of at least 1 that fit into the image, got {h}×{w} pixels"))?;
    Ok([h_out as u64, w_out as u64])
}

fn rows(o: &Options) -> Result<Vec<Row>> {
    let side = |text: &str| text.trim().parse::<u32>().with_context(|| format!("--size {}: a number or HxW", o.size));
    let (h, w) = o.size.split_once(['x', '×']).unwrap_or((&o.size, &o.size));
    let mut shape = [o.images, side(h)?.into(), side(w)?.into(), o.channels];
    if shape.contains(&0) {
        bail!("images, size and channels are at least 1");
    }
    let mut rows = vec![Row::new("input".into(), shape, 0, 0)?];
    let layers =
        [o.filters.len(), o.kernel.len(), o.stride.len(), o.padding.len(), o.pool.len()].into_iter().max().unwrap_or(1);
    fn nth<T>(values: &[T], i: usize) -> &T {
        &values[i.min(values.len() - 1)]
    }
    for i in 0..layers {
        let (&filters, &kernel, &stride) = (nth(&o.filters, i), nth(&o.kernel, i), nth(&o.stride, i));
        let (pad, &pool) = (nth(&o.padding, i), nth(&o.pool, i));
        ensure!(filters > 0, "a convolution has at least one filter");
        let [n, .., c] = shape;
        let layer = format!("conv {i}: {filters} filters {kernel}×{kernel}, stride {stride}, {pad}", i = i + 1);
        let taps = product(&[kernel.into(), kernel.into(), c]).context("the kernel is too large")?;
        let weights = taps.checked_add(u64::from(!o.no_bias)).and_then(|n| product(&[n, filters]));
        let parameters = weights.context("too many parameters")?;
        let [h, w] = windows(shape, kernel, stride, padding(pad)?, &layer)?;
        shape = [n, h, w, filters];
        rows.push(Row::new(layer, shape, parameters, taps)?);
        if pool > 1 {
            let layer = format!("pool {}: max {pool}×{pool}", i + 1);
            let [h, w] = windows(shape, pool, pool, Padding::Valid, &layer)?;
            shape = [n, h, w, filters];
            rows.push(Row::new(layer, shape, 0, 0)?);
        }
    }
    Ok(rows)
}

/// Returns a number with thousands separators.
fn commas(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn main() -> Result<()> {
    let o = Options::parse();
    let rows = rows(&o)?;
    let sum = |f: fn(&Row) -> u64| rows.iter().map(f).fold(0, u64::saturating_add);
    let (parameters, macs, bytes) = (sum(|r| r.parameters), sum(|r| r.macs), sum(|r| r.bytes));
    if o.json {
        let layers: Vec<_> = rows
            .iter()
            .map(|r| {
                serde_json::json!({ "layer": r.layer, "shape": r.shape, "parameters": r.parameters, "macs": r.macs,
                                    "bytes": r.bytes })
            })
            .collect();
        let all = serde_json::json!({ "layers": layers, "parameters": parameters, "macs": macs, "bytes": bytes });
        println!("{all}");
        return Ok(());
    }
    let mut table = vec![["layer", "shape (n, h, w, c)", "parameters", "multiply-adds", "bytes"].map(String::from)];
    table.extend(rows.iter().map(|r| {
        let shape = format!("({})", r.shape.map(|d| d.to_string()).join(", "));
        [r.layer.clone(), shape, commas(r.parameters), commas(r.macs), commas(r.bytes)]
    }));
    table.push(["total".into(), String::new(), commas(parameters), commas(macs), commas(bytes)]);
    let widths: Vec<usize> =
        (0..5).map(|i| table.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
    for row in &table {
        let cell = |i: usize| match i {
            0 | 1 => format!("{:<width$}", row[i], width = widths[i]),
            _ => format!("{:>width$}", row[i], width = widths[i]),
        };
        println!("{}", (0..5).map(cell).collect::<Vec<_>>().join("  "));
    }
    Ok(())
}
