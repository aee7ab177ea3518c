use super::{DataFormat, layer};
use crate::{
    graph::{Graph, Initialize, OpError, Value},
    nn::{Initializer, Scope},
    ops::{Conv2dOptions, Padding},
    tensor::{Philox, Shape},
};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// What [`STFTSpectrogram`] makes of the transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpectrumMode {
    /// The logarithm of the magnitude.
    Log,
    /// The root of the power.
    Magnitude,
    /// The power, that of the frequencies inside counted twice.
    Psd,
    /// The real parts.
    Real,
    /// The imaginary parts.
    Imag,
    /// The real parts, then the imaginary ones.
    Stft,
}

layer! {
    /// Spectrum of each frame of sequences (N, T, channels), by convolutions whose kernels are the Fourier transform's and
    /// can be trained (Keras `STFTSpectrogram`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([16000, 1]).add(STFTSpectrogram::new(512).frame_step(256)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 61, 257)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct STFTSpectrogram as "STFTSpectrogram" {
        new frame_length: usize = 256,
        /// Sets what is made of the transform.
        set mode: SpectrumMode = SpectrumMode::Log,
        /// Sets the distance of frames; `None` is half of their length.
        into frame_step: Option<usize> = None,
        /// Sets the length of the transform; `None` is the next power of two.
        into fft_length: Option<usize> = None,
        /// Sets the window that the kernels begin with: `hann` or `hamming`.
        into window: String = "hann".to_owned(),
        /// Sets whether the window goes on after its end.
        set periodic: bool = false,
        /// Sets how the window is scaled: by its length (`density`) or its sum (`spectrum`).
        into scaling: String = "density".to_owned(),
        /// Sets the padding.
        set padding: Padding = Padding::Valid,
        /// Sets whether frequencies and channels are axes of their own.
        set expand_dims: bool = false,
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
    }
}

/// The kernel of one part of the transform.
#[derive(Debug)]
struct Fourier {
    fft: usize,
    real: bool,
    hamming: bool,
    periodic: bool,
    spectrum: bool,
}

/// Returns element `t` of a window of Hamming or Hann that goes round once in `turn` elements.
pub(super) fn window(hamming: bool, t: usize, turn: f64) -> f64 {
    let (least, span) = if hamming { (0.54, 0.46) } else { (0.5, 0.5) };
    least - span * (TAU * t as f64 / turn).cos()
}

impl Initialize for Fourier {
    fn fill(&self, shape: &[usize], _rng: &mut Philox) -> Vec<f32> {
        let &[frame, _, frequencies] = shape else { return Vec::new() };
        let turn = (if self.periodic { frame } else { frame.saturating_sub(1) }).max(1) as f64;
        let window: Vec<f64> = (0..frame).map(|t| window(self.hamming, t, turn)).collect();
        let scale = match self.spectrum {
            true => window.iter().map(|w| w.abs()).sum::<f64>(),
            false => window.iter().map(|w| w * w).sum::<f64>().sqrt(),
        };
        let at = |i: usize| {
            let (t, f) = (i / frequencies, i % frequencies);
            let angle = -TAU * (t * f % self.fft) as f64 / self.fft as f64;
            (if self.real { angle.cos() } else { angle.sin() } * window[t] / scale) as f32
        };
        (0..frame * frequencies).map(at).collect()
    }
}

impl STFTSpectrogram {
    /// Returns a layer with frames of this length.
    pub fn new(frame_length: usize) -> Self {
        STFTSpectrogram { frame_length, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        Ok(vec![self.data_format.last(scope, inputs[0], |scope, x| self.spectrum(scope, x))?])
    }

    fn spectrum(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let shape = scope.graph.shape(x).clone();
        let fft = self.fft_length.or(self.frame_length.checked_next_power_of_two()).unwrap_or(0);
        let step = self.frame_step.unwrap_or(self.frame_length / 2);
        let known = ["hann", "hamming"].contains(&&*self.window) && ["density", "spectrum"].contains(&&*self.scaling);
        let &[_, length, channels] = shape.dims() else {
            let advice = "give samples a time axis and a channel axis";
            return Err(OpError::new("stft_spectrogram", "an input of shape (N, length, channels)", shape, advice));
        };
        if !known || step == 0 || fft < self.frame_length || self.padding == Padding::Causal {
            let wanted = "hann or hamming, density or spectrum, a step of at least 1 and frames within the transform";
            let got = format!("{}, {}, {step}, {} of {fft}", self.window, self.scaling, self.frame_length);
            return Err(OpError::new("stft_spectrogram", wanted, got, "change the option"));
        }
        // Each channel is a sequence of its own.
        let rows = scope.graph.transpose(x, &[0, 2, 1])?;
        let rows = scope.graph.reshape(rows, Shape::batched(channels, &[length, 1]))?;
        let options = Conv2dOptions { padding: self.padding, strides: [1, step], dilation: [1, 1], groups: 1 };
        let mut part = |name: &str, real: bool| {
            let kernel = Fourier {
                fft,
                real,
                hamming: self.window == "hamming",
                periodic: self.periodic,
                spectrum: self.scaling == "spectrum",
            };
            let own = [self.frame_length, 1, fft / 2 + 1];
            let kernel = scope.weight(name, &own, &Initializer::custom(kernel))?;
            scope.graph.conv1d(rows, kernel, options)
        };
        let mut parts = Vec::new();
        if self.mode != SpectrumMode::Imag {
            parts.push(part("real_kernel", true)?);
        }
        if self.mode != SpectrumMode::Real {
            parts.push(part("imag_kernel", false)?);
        }
        let g = &mut *scope.graph;
        let y = match self.mode {
            SpectrumMode::Real | SpectrumMode::Imag | SpectrumMode::Stft => g.concat(&parts, 2)?,
            _ => self.of_power(g, &parts)?,
        };
        let (steps, frequencies) = (g.shape(y).dims()[1], g.shape(y).last());
        let y = g.reshape(y, shape.with_row(&[channels, steps, frequencies]))?;
        if self.expand_dims {
            return g.transpose(y, &[0, 2, 3, 1]);
        }
        let y = g.transpose(y, &[0, 2, 1, 3])?;
        g.reshape(y, shape.with_row(&[steps, channels * frequencies]))
    }

    /// Returns a function of the power, the sum of the parts' squares.
    fn of_power(&self, g: &mut Graph, parts: &[Value]) -> Result<Value, OpError> {
        let (real, imag) = (g.unary("square", parts[0])?, g.unary("square", parts[1])?);
        let power = g.add(real, imag)?;
        if self.mode == SpectrumMode::Psd {
            let n = g.shape(power).last();
            let counts: Vec<f32> = (0..n).map(|f| if f == 0 || f + 1 == n { 1.0 } else { 2.0 }).collect();
            let counts = g.literal([n], counts)?;
            return g.mul(power, counts);
        }
        let least = g.constant(1e-7)?;
        let power = g.max(power, least)?;
        let magnitude = g.sqrt(power)?;
        match self.mode {
            SpectrumMode::Magnitude => Ok(magnitude),
            _ => g.unary("log", magnitude),
        }
    }
}
