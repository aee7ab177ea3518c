//! Losses and metrics of the epochs.

use std::fmt::{self, Write as _};

/// Loss and metrics of each epoch (Keras `History`).
///
/// ```
/// use hubel::prelude::*;
/// let mut history = History::default();
/// history.push(0, &[("loss".into(), 0.5)]);
/// assert_eq!(history.get("loss"), Some(&[0.5][..]));
/// assert_eq!(history.to_string(), "epoch    loss\n    1  0.5000\n");
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// Numbers of the epochs, from 0.
    pub epochs: Vec<usize>,
    /// A series for each name, in the order of their first appearance.
    pub series: Vec<(String, Vec<f64>)>,
}

impl History {
    /// Appends an epoch.
    pub fn push(&mut self, epoch: usize, values: &[(String, f64)]) {
        let before = self.epochs.len();
        self.epochs.push(epoch);
        for (name, value) in values {
            match self.series.iter_mut().find(|(n, _)| n == name) {
                Some((_, series)) => series.push(*value),
                None => {
                    let mut series = vec![f64::NAN; before];
                    series.push(*value);
                    self.series.push((name.clone(), series));
                }
            }
        }
        for (_, series) in &mut self.series {
            series.resize(before + 1, f64::NAN);
        }
    }

    /// Returns the series of this name.
    pub fn get(&self, name: &str) -> Option<&[f64]> {
        self.series.iter().find(|(n, _)| n == name).map(|(_, s)| s.as_slice())
    }

    /// Returns the last value of a series.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.get(name)?.last().copied()
    }

    /// Returns the history as CSV: `epoch` from 0, then a column for each name.
    pub fn to_csv(&self) -> String {
        let mut out = String::from("epoch");
        for (name, _) in &self.series {
            let _ = write!(out, ",{name}");
        }
        out.push('\n');
        for (i, epoch) in self.epochs.iter().enumerate() {
            let _ = write!(out, "{epoch}");
            for (_, series) in &self.series {
                let _ = write!(out, ",{}", series[i]);
            }
            out.push('\n');
        }
        out
    }
}

/// A row for each epoch, counted from 1, and a column for each name; norms are left out.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |x: f64| match x.abs() {
            small if small > 0.0 && small < 1e-3 || (1e6..f64::INFINITY).contains(&small) => format!("{x:.2e}"),
            _ => format!("{x:.4}"),
        };
        let shown = self.series.iter().filter(|(name, _)| !name.contains('/'));
        let columns = shown.map(|(name, values)| (name.clone(), values.iter().copied().map(number).collect()));
        let epochs = self.epochs.iter().map(|epoch| (epoch + 1).to_string()).collect();
        let columns: Vec<(String, Vec<String>)> = [("epoch".to_owned(), epochs)].into_iter().chain(columns).collect();
        let width =
            |(name, cells): &(String, Vec<String>)| cells.iter().map(String::len).max().unwrap_or(0).max(name.len());
        let widths: Vec<usize> = columns.iter().map(width).collect();
        let line = |cells: Vec<&str>| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
            padded.collect::<Vec<_>>().join("  ")
        };
        writeln!(f, "{}", line(columns.iter().map(|c| c.0.as_str()).collect()))?;
        for i in 0..self.epochs.len() {
            writeln!(f, "{}", line(columns.iter().map(|c| c.1[i].as_str()).collect()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_have_a_value_for_each_epoch_nan_where_there_was_none() {
        let mut history = History::default();
        history.push(0, &[("loss".into(), 2.0)]);
        history.push(1, &[("accuracy".into(), 0.5)]);
        history.push(2, &[("loss".into(), 1.0), ("accuracy".into(), 0.75)]);
        assert_eq!(history.epochs, [0, 1, 2]);
        let bits = |name: &str| history.get(name).map(|s| s.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        let (nan, of) = (f64::NAN.to_bits(), |v: f64| v.to_bits());
        assert_eq!(bits("loss"), Some(vec![of(2.0), nan, of(1.0)]));
        assert_eq!(bits("accuracy"), Some(vec![nan, of(0.5), of(0.75)]));
        assert_eq!(history.last("loss"), Some(1.0));
    }
}
