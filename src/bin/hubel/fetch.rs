use crate::{Found, utf8};
use anyhow::{Context, Result};
use hubel::{
    io::fetch::{self, Published},
    nn::models,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of a known network
    name: String,
    /// The weights without the classifier
    #[arg(long)]
    no_top: bool,
    /// The cache folder (or set HUBEL_CACHE)
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Downloads a network's published weights and returns their path.
pub fn find(arguments: &Arguments) -> Result<Found> {
    let name = models::find(&arguments.name).map_or(arguments.name.as_str(), |a| a.name);
    let (url, md5) = fetch::imagenet(name, !arguments.no_top).with_context(|| {
        let known: Vec<&str> = fetch::names().collect();
        format!("no weights of `{name}` are published with a checksum; choose one of {}", known.join(", "))
    })?;
    let folder = arguments.folder.clone().unwrap_or_else(fetch::cache_folder);
    utf8(&folder)?;
    let style = ProgressStyle::with_template("{bar:24} {bytes}/{total_bytes} {bytes_per_sec}")?;
    let bar = ProgressBar::new(0).with_style(style.progress_chars("━╸ "));
    let path = fetch::fetch(Published { url: &url, md5 }, &folder, |done, total| {
        bar.set_length(total.unwrap_or(done));
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let path = utf8(&path)?;
    Ok(Found::new(json!({ "model": name, "file": path, "url": url, "md5": md5 }), path))
}
