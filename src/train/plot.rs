//! Images of a model's graph.

use crate::{
    Error,
    data::plots::diagram::{Block, Diagram},
    io::{Flaw, FormatError, image},
    nn::Model,
};
use std::{fs, path::Path};

impl Model {
    /// Draws the graph of the model, a box for each input and each use of a layer: name, type, shape of its output,
    /// number of weights.
    ///
    /// The path's extension chooses SVG or PNG; any other is an error.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// # let folder = temp_dir::TempDir::new().expect("a folder");
    /// # std::env::set_current_dir(folder.path()).expect("a folder to work in");
    /// models::lenet5()?.plot("lenet5.svg")?;
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn plot(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let blocks: Vec<Block> = (self.diagram()?.into_iter())
            .map(|(name, kind, shape, weights, inputs)| {
                let weights = if weights > 0 { format!("{weights} weights") } else { String::new() };
                Block { lines: [[name, kind.to_owned()], [shape.to_string(), weights]], inputs }
            })
            .collect();
        let diagram = Diagram::new(&blocks)?;
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "svg" => Ok(fs::write(path, diagram.svg()).map_err(|e| FormatError::io(path, "to write the diagram", &e))?),
            "png" => Ok(image::save(&diagram.image()?, path)?),
            _ => {
                let got = format!("`{ending}`");
                let error = FormatError::new(Flaw::Image, "the diagram's path", "the extension .svg or .png", got);
                Err(error.of(path).advise("give the path one of these extensions").into())
            }
        }
    }
}
