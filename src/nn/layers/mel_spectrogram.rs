use super::{layer, spectrogram::window};
use crate::{
    graph::{Graph, OpError, Value},
    nn::Scope,
    ops::{Conv2dOptions, PadMode, Part},
    tensor::Shape,
};
use std::f64::consts::TAU;

const MAX_FFT: usize = 4096;

layer! {
    /// Spectrogram of waves (N, T) by frequencies as they are heard, (N, bins, frames) (Keras `MelSpectrogram`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([16000]).add(MelSpectrogram::new().num_mel_bins(64).fft_length(512)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 64, 32)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct MelSpectrogram as "MelSpectrogram" {
        /// Sets the length of the transform, at most 4,096.
        set fft_length: usize = 2048,
        /// Sets the distance of frames.
        set sequence_stride: usize = 512,
        /// Sets the length of the window; `None` is that of the transform.
        into sequence_length: Option<usize> = None,
        /// Sets the window: `hann`, `hamming` or none.
        into window: Option<String> = Some("hann".to_owned()),
        /// Sets how many samples of the wave there are in a second.
        set sampling_rate: f32 = 16000.0,
        /// Sets the number of bands.
        set num_mel_bins: usize = 128,
        /// Sets the lowest frequency, in Hz.
        set min_freq: f32 = 20.0,
        /// Sets the highest frequency; `None` is half of the sampling rate.
        into max_freq: Option<f32> = None,
        /// Sets whether the result is in decibels.
        set power_to_db: bool = true,
        /// Sets how many decibels below the batch's largest value others are raised to.
        set top_db: f32 = 80.0,
        /// Sets the power of the magnitudes.
        set mag_exp: f32 = 2.0,
        /// Sets the least power that is told from none.
        set min_power: f32 = 1e-10,
        /// Sets the power of 0 decibels.
        set ref_power: f32 = 1.0,
    }
}

/// Returns a frequency on the scale of mels, by the natural logarithm.
fn mel(hertz: f64) -> f64 {
    1127.0 * (hertz / 700.0).ln_1p()
}

impl MelSpectrogram {
    /// Returns a layer of 128 bands and a transform of 2,048 samples, for 16,000 samples in a second.
    pub fn new() -> Self {
        Self::default()
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let (g, x) = (&mut *scope.graph, inputs[0]);
        let shape = g.shape(x).clone();
        let (fft, frame) = (self.fft_length, self.sequence_length.unwrap_or(self.fft_length));
        let &[_, length] = shape.dims() else {
            return Err(OpError::new("mel_spectrogram", "waves (N, T)", shape, "leave the axis of channels out"));
        };
        let is_window = self.window.as_deref().is_none_or(|w| ["hann", "hamming"].contains(&w));
        let is_size = (2..=MAX_FFT).contains(&fft) && (1..=fft).contains(&frame) && fft / 2 < length;
        let is_band = (1..=MAX_FFT - 2).contains(&self.num_mel_bins) && self.min_freq > -700.0;
        if !is_window || !is_size || !is_band || self.sequence_stride == 0 || self.min_freq >= self.highest() {
            let wanted = "hann, hamming or no window, a transform of 2 to 4096 samples and less than twice the wave, a \
                          stride, and bands of rising frequencies";
            let got = format!(
                "{:?}, {frame} of {fft} in {length}, stride {}, {} bands from {} to {} Hz",
                self.window,
                self.sequence_stride,
                self.num_mel_bins,
                self.min_freq,
                self.highest()
            );
            return Err(OpError::new("mel_spectrogram", wanted, got, "change the option"));
        }
        let rows = g.reshape(x, shape.with_row(&[length, 1]))?;
        let half = (fft / 2) as isize;
        let rows = g.pad1d(rows, [half, half], PadMode::Reflect)?;
        let kernel = self.transform(g, frame)?;
        let options = Conv2dOptions { strides: [1, self.sequence_stride], ..Conv2dOptions::valid() };
        let parts = g.conv1d(rows, kernel, options)?;
        let squares = g.unary("square", parts)?;
        let frequencies = fft / 2 + 1;
        let real = g.slice_axis(squares, 2, Part::new(0, frequencies))?;
        let imag = g.slice_axis(squares, 2, Part::new(frequencies, frequencies))?;
        let power = g.add(real, imag)?;
        let power = match self.mag_exp {
            2.0 => power,
            1.0 => g.sqrt(power)?,
            exponent => {
                let half = g.constant(exponent / 2.0)?;
                g.binary("pow", power, half)?
            }
        };
        let bands = self.bands(g, frequencies)?;
        let heard = g.project(power, bands, None)?;
        let y = if self.power_to_db { self.decibels(g, heard)? } else { heard };
        Ok(vec![g.transpose(y, &[0, 2, 1])?])
    }

    fn highest(&self) -> f32 {
        // As Keras has it, a whole number.
        self.max_freq.unwrap_or((self.sampling_rate / 2.0).trunc())
    }

    /// Returns the kernel (fft, 1, 2 · frequencies) of the windowed transform: real parts, then imaginary ones.
    fn transform(&self, g: &mut Graph, frame: usize) -> Result<Value, OpError> {
        let (fft, frequencies) = (self.fft_length, self.fft_length / 2 + 1);
        let before = (fft - frame) / 2;
        let weight = |t: usize| match self.window.as_deref() {
            None => 1.0,
            Some(_) if !(before..before + frame).contains(&t) => 0.0,
            Some(name) => window(name == "hamming", t - before, frame as f64),
        };
        let window = g.literal([fft, 1], (0..fft).map(|t| weight(t) as f32).collect::<Vec<_>>())?;
        let count = |n: usize| (0..n).map(|i| i as f32).collect::<Vec<_>>();
        let (times, waves) = (g.literal([fft, 1], count(fft))?, g.literal([1, frequencies], count(frequencies))?);
        // t · f less whole turns, all of them whole numbers below 2²⁴; a quotient may round to the next turn.
        let angles = g.mul(times, waves)?;
        let length = g.constant(fft as f32)?;
        let turns = g.div(angles, length)?;
        let turns = g.unary("floor", turns)?;
        let whole = g.scale(turns, fft as f32)?;
        let rest = g.sub(angles, whole)?;
        let zero = g.constant(0.0)?;
        let below = g.binary("less", rest, zero)?;
        let (more, above) = (g.scale(below, fft as f32)?, g.binary("greater_equal", rest, length)?);
        let less = g.scale(above, fft as f32)?;
        let places = g.add(rest, more)?;
        let places = g.sub(places, less)?;
        let mut parts = Vec::new();
        for function in [f64::cos, |angle: f64| -angle.sin()] {
            let values: Vec<f32> = (0..fft).map(|i| function(TAU * i as f64 / fft as f64) as f32).collect();
            let table = g.literal([fft, 1], values)?;
            let part = g.embedding(table, places)?;
            parts.push(g.reshape(part, Shape::fixed([fft, frequencies]))?);
        }
        let both = g.concat(&parts, 1)?;
        let kernel = g.mul(both, window)?;
        g.reshape(kernel, Shape::fixed([fft, 1, 2 * frequencies]))
    }

    /// Returns the share of each frequency in each band: triangles on the scale of mels.
    fn bands(&self, g: &mut Graph, frequencies: usize) -> Result<Value, OpError> {
        let n = self.num_mel_bins;
        let (low, high) = (mel(self.min_freq.into()), mel(self.highest().into()));
        let edge = |i: usize| (low + (high - low) * i as f64 / (n + 1) as f64) as f32;
        let hertz = f64::from(self.sampling_rate) / 2.0 / (frequencies - 1) as f64;
        // A frequency of 0 is in no band.
        let own = (0..frequencies).map(|f| if f == 0 { -1e9 } else { mel(hertz * f as f64) as f32 });
        let own = g.literal([frequencies, 1], own.collect::<Vec<_>>())?;
        let mut edges = |from: usize| g.literal([1, n], (from..from + n).map(edge).collect::<Vec<_>>());
        let (lower, center, upper) = (edges(0)?, edges(1)?, edges(2)?);
        let (above, rise) = (g.sub(own, lower)?, g.sub(center, lower)?);
        let (below, fall) = (g.sub(upper, own)?, g.sub(upper, center)?);
        let (up, down) = (g.div(above, rise)?, g.div(below, fall)?);
        let (share, zero) = (g.min(up, down)?, g.constant(0.0)?);
        g.max(share, zero)
    }

    /// Returns powers in decibels, none so far below the largest of the batch.
    fn decibels(&self, g: &mut Graph, power: Value) -> Result<Value, OpError> {
        let least = g.constant(self.min_power)?;
        let power = g.max(power, least)?;
        let logs = g.unary("log", power)?;
        let logs = g.scale(logs, 10.0 / std::f32::consts::LN_10)?;
        let zero = g.constant(10.0 * self.ref_power.abs().max(self.min_power).log10())?;
        let y = g.sub(logs, zero)?;
        let largest = g.max_axes(y, &[0, 1, 2], true)?;
        let span = g.constant(self.top_db)?;
        let floor = g.sub(largest, span)?;
        g.max(y, floor)
    }
}
