//! Models as pictures.

use crate::{
    Error,
    data::picture::{Cell, diagram, diagram_svg},
    io::{Flaw, FormatError},
    nn::{Model, Row},
};
use std::{collections::HashMap, path::Path};

impl Model {
    /// Draws the model's layers and how they are connected to a file, SVG or PNG by its ending (Keras `plot_model`).
    ///
    /// ```
    /// use hubel::prelude::*;
    /// # let folder = tempfile::tempdir().expect("a folder");
    /// let x = Input::new([8, 8, 4]);
    /// let y = x.apply(Conv2D::new(4, 3).padding(Same))?;
    /// let model = Model::new(&[x.clone()], &[add(&[x, y])?])?;
    /// model.plot(folder.path().join("model.svg"))?;
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn plot(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let (cells, arrows) = self.cells();
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        let failed = |e: String| FormatError {
            file: Some(path.into()),
            ..FormatError::new(Flaw::Io, "the file", "a writable file", e)
        };
        match ending.as_str() {
            "svg" => std::fs::write(path, diagram_svg(&cells, &arrows)).map_err(|e| failed(e.to_string()))?,
            "png" => diagram(&cells, &arrows)?.save(path).map_err(|e| failed(e.to_string()))?,
            _ => {
                let got = format!("`{ending}`");
                let error = FormatError::new(Flaw::Picture, "the ending", "`svg` or `png`", got);
                return Err(FormatError { file: Some(path.into()), ..error }.into());
            }
        }
        Ok(())
    }

    /// Returns a box for each row of the summary, as low as its longest way from an input, and who feeds whom.
    fn cells(&self) -> (Vec<Cell>, Vec<(usize, usize)>) {
        let mut rows = self.summary().rows;
        if rows.iter().all(|r| r.inputs.is_empty()) {
            // A chain's rows do not say what they follow.
            let names: Vec<String> = rows.iter().map(|r| r.name.clone()).collect();
            rows.iter_mut().skip(1).zip(names).for_each(|(row, before)| row.inputs.push(before));
        }
        let at: HashMap<&str, usize> = rows.iter().enumerate().map(|(i, r)| (r.name.as_str(), i)).collect();
        let arrows: Vec<(usize, usize)> = (rows.iter().enumerate())
            .flat_map(|(to, row)| {
                row.inputs.iter().filter_map(|from| at.get(from.as_str()).copied()).map(move |from| (from, to))
            })
            .collect();
        let mut depth = vec![0usize; rows.len()];
        for &(from, to) in arrows.iter().filter(|(from, to)| from < to) {
            depth[to] = depth[to].max(depth[from] + 1);
        }
        // Where the inputs of a box lie on average, unless a box is there already.
        let mut columns = vec![0.0f64; rows.len()];
        let mut taken: HashMap<usize, f64> = HashMap::new();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&i| (depth[i], i));
        for i in order {
            let above: Vec<f64> = arrows.iter().filter(|a| a.1 == i && a.0 < i).map(|a| columns[a.0]).collect();
            let mean = above.iter().sum::<f64>() / above.len().max(1) as f64;
            let free = taken.get(&depth[i]).map_or(0.0, |last| last + 1.0);
            columns[i] = mean.max(free);
            taken.insert(depth[i], columns[i]);
        }
        let text = |r: &Row| {
            let params = if r.params > 0 { format!(", {} weights", r.params) } else { String::new() };
            [format!("{} ({})", r.name, r.kind), format!("{}{params}", r.output)]
        };
        let cells =
            (rows.iter().enumerate()).map(|(i, r)| Cell { column: columns[i], row: depth[i], text: text(r) }).collect();
        (cells, arrows)
    }
}
