use std::fmt::Write as _;

/// Loss and metrics of each epoch (Keras `History`).
///
/// ```
/// use hubel::prelude::*;
/// let mut history = History::default();
/// history.push(0, &[("loss".into(), 0.5)]);
/// assert_eq!(history.get("loss"), Some(&[0.5][..]));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Numbers of the epochs, from 0.
    pub epochs: Vec<usize>,
    /// A series for each name, in the order in which the names came.
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
