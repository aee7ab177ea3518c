//! `--fit` measures the candidates of the cases that count what they do, writes the measurements to
//! `benches/results/cost-ADAPTER.jsonl` and fits the coefficients of the cost model to them; `--fit=FILE` fits them to a file that is
//! there. `--assert-picks` measures all candidates and fails where the one that is picked takes over 10% longer than the fastest.
//!
//! Candidates through workgroup memory are left out on software adapters, which never pick them.

use crate::{Bench, candidates};
use anyhow::{Context, Result, ensure};
use hubel::{
    graph::{Candidate, Counts, DeviceClass, Sample},
    kernels::{Core, Schedule, coefficients},
};
use serde_json::{Value, json};
use std::{fs, process::Command};

/// How much longer than the fastest a pick may take.
const TOLERANCE: f64 = 1.1;
/// The batch that candidates count for.
const COUNTED_BATCH: f64 = 64.0;

/// What one candidate counts, and the nanoseconds that it took.
struct Row {
    counts: Vec<f64>,
    ns: f64,
}

/// Returns the candidates of a case that may be picked on this device.
fn possible(bench: &Bench, sample: &Sample) -> Result<Vec<Candidate>> {
    let profile = bench.engine.profile();
    let software = profile.class == DeviceClass::Cpu;
    let mut all = candidates(sample, profile)?;
    let is_shared = |c: &Candidate| c.variant.parse().is_ok_and(|s: Schedule| s.core == Core::Shared);
    all.retain(|c| !(software && is_shared(c)));
    Ok(all)
}

/// Returns the milliseconds of a candidate and its launches.
fn measure(bench: &mut Bench, (name, sample): &(String, Sample), variant: &str) -> Result<(f64, usize)> {
    bench.variant = Some((sample.op.name().to_owned(), variant.to_owned()));
    let measured = bench.measure(name, sample);
    bench.variant = None;
    let m = measured.with_context(|| format!("{name} {variant}"))?;
    ensure!(m.plan.dispatches.iter().any(|d| d.variant == variant), "{name}: no plan has {variant} here");
    Ok((m.gpu.unwrap_or(m.wall), m.plan.dispatches.len()))
}

/// Returns what a command prints.
fn said(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

/// Measures the candidates of all cases that count what they do; returns JSON lines.
fn measure_all(bench: &mut Bench, cases: &[(String, Sample)]) -> Result<Vec<Value>> {
    let (adapter, driver) = (bench.engine.info().name.clone(), bench.engine.info().driver.clone());
    let (date, commit) = (said("date", &["+%F"]), said("git", &["rev-parse", "--short", "HEAD"]));
    let mut lines = Vec::new();
    for case in cases {
        let (name, sample) = case;
        for candidate in possible(bench, sample)? {
            let Some(counts) = candidate.counts else { continue };
            let (ms, launches) = match measure(bench, case, &candidate.variant) {
                Ok(measured) => measured,
                Err(e) => {
                    eprintln!("{e:#}");
                    continue;
                }
            };
            // What is counted for a batch of 64 is measured for this one.
            let batched = sample.inputs.iter().any(|(ty, _)| ty.shape.elements().per_sample > 0);
            let counts = if batched { counts * (sample.n as f64 / COUNTED_BATCH) } else { counts };
            let counts = Counts { launch: launches as f64, ..counts };
            println!("{name:48} {ms:>10.3} {:>10.3}  {}", predicted(bench, counts), candidate.variant);
            let named: serde_json::Map<String, Value> =
                Counts::NAMES.iter().zip(counts.values()).map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
            let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
            lines.push(json!({
                "case": name, "variant": candidate.variant, "n": sample.n, "ms": ms, "counts": named, "adapter": adapter,
                "driver": driver, "date": date, "commit": commit, "load_average": load.split(' ').next(),
            }));
        }
    }
    Ok(lines)
}

/// Returns the milliseconds by the coefficients of today.
fn predicted(bench: &Bench, counts: Counts) -> f64 {
    counts.time(coefficients(bench.engine.profile().class)) / 1e6
}

/// Returns the coefficients, none below 0, whose errors, relative to the measured times, have the least sum of squares: by coordinate
/// descent on the normal equations.
fn non_negative_least_squares(rows: &[Row]) -> Vec<f64> {
    let n = Counts::NAMES.len();
    let shares: Vec<Vec<f64>> = rows.iter().map(|r| r.counts.iter().map(|c| c / r.ns).collect()).collect();
    let norms: Vec<f64> = (0..n).map(|j| shares.iter().map(|r| r[j] * r[j]).sum::<f64>().sqrt()).collect();
    let scaled = |r: &[f64], j: usize| if norms[j] > 0.0 { r[j] / norms[j] } else { 0.0 };
    let product = |i: usize, j: usize| shares.iter().map(|r| scaled(r, i) * scaled(r, j)).sum::<f64>();
    let matrix: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| product(i, j)).collect()).collect();
    let wanted: Vec<f64> = (0..n).map(|j| shares.iter().map(|r| scaled(r, j)).sum()).collect();
    let mut x = vec![0.0; n];
    for _ in 0..100_000 {
        for j in 0..n {
            let residual = wanted[j] - matrix[j].iter().zip(&x).map(|(a, x)| a * x).sum::<f64>();
            x[j] = f64::max(0.0, x[j] + residual);
        }
    }
    x.iter().zip(&norms).map(|(x, norm)| if *norm > 0.0 { x / norm } else { 0.0 }).collect()
}

/// Returns the median of the relative errors of an estimate.
fn error(rows: &[Row], each: &[f64]) -> f64 {
    let time = |r: &Row| r.counts.iter().zip(each).map(|(n, ns)| n * ns).sum::<f64>();
    let mut errors: Vec<f64> = rows.iter().map(|r| (time(r) / r.ns - 1.0).abs()).collect();
    errors.sort_by(f64::total_cmp);
    errors.get(errors.len() / 2).copied().unwrap_or_default()
}

/// Fits the coefficients to the lines of a file and prints them.
fn fit(lines: &[Value], class: DeviceClass) -> Result<()> {
    let row = |line: &Value| -> Result<Row> {
        let count = |name: &&str| line["counts"][name].as_f64().with_context(|| format!("no `{name}` in {line}"));
        let ns = line["ms"].as_f64().with_context(|| format!("no `ms` in {line}"))? * 1e6;
        Ok(Row { counts: Counts::NAMES.iter().map(count).collect::<Result<_>>()?, ns })
    };
    let rows: Vec<Row> = lines.iter().map(row).collect::<Result<_>>()?;
    ensure!(!rows.is_empty(), "no case counts what its kernels do; name cases of conv2d or matmul");
    let (old, new) = (coefficients(class).values(), non_negative_least_squares(&rows));
    println!(
        "\n// {} measurements; median error {:.0}% ({:.0}% before)",
        rows.len(),
        100.0 * error(&rows, &new),
        100.0 * error(&rows, &old)
    );
    for (j, name) in Counts::NAMES.iter().enumerate() {
        let met = rows.iter().filter(|r| r.counts[j] > 0.0).count();
        println!("    {name}: {:.2}, // {:.2} before, in {met} measurements", new[j], old[j]);
    }
    Ok(())
}

/// Does what `--fit` says, with the file behind it if there is one.
pub fn run_fit(bench: &mut Bench, cases: &[(String, Sample)], file: Option<&str>) -> Result<()> {
    let class = bench.engine.profile().class;
    if let Some(file) = file {
        let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
        return fit(&text.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>()?, class);
    }
    println!("{:48} {:>10} {:>10}  variant", "case", "ms", "estimate");
    let lines = measure_all(bench, cases)?;
    let name = bench.engine.info().name.to_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let path = format!("benches/results/cost-{}.jsonl", words.join("-"));
    fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).with_context(|| path.clone())?;
    println!("\nwritten to {path}");
    fit(&lines, class)
}

/// Does what `--assert-picks` says.
pub fn assert_picks(bench: &mut Bench, cases: &[(String, Sample)]) -> Result<()> {
    let mut slow = 0;
    for case in cases {
        let all = possible(bench, &case.1)?;
        if all.len() < 2 {
            continue;
        }
        let pick = bench.measure(&case.0, &case.1)?.plan.dispatches[0].variant.clone();
        let mut times = Vec::new();
        for candidate in &all {
            match measure(bench, case, &candidate.variant) {
                Ok((ms, _)) => times.push((ms, candidate.variant.as_str())),
                Err(e) => eprintln!("{e:#}"),
            }
        }
        times.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (Some(fastest), Some(picked)) = (times.first(), times.iter().find(|t| t.1 == pick)) else { continue };
        if picked.0 > TOLERANCE * fastest.0 {
            slow += 1;
            println!("{:48} {:>10.3} {pick}, but {:.3} {}", case.0, picked.0, fastest.0, fastest.1);
        }
    }
    ensure!(slow == 0, "{slow} picks take over 10% longer than the fastest candidate");
    println!("every pick of {} cases is within 10% of the fastest candidate", cases.len());
    Ok(())
}
