//! Ranges of the numbers that options take, checked in one place.

use crate::graph::OpError;
use std::fmt;

/// What a number must be.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Bounds {
    /// Neither infinite nor NaN.
    Finite,
    /// Finite and at least 0.
    AtLeastZero,
    /// Finite and above 0.
    Positive,
    /// From 0 to 1.
    Share,
    /// From 0 to below 1.
    BelowOne,
    /// Above 0 and below 1.
    Between,
}

impl Bounds {
    /// Returns whether a number is within the bounds; NaN never is.
    pub fn hold(self, x: f64) -> bool {
        match self {
            Bounds::Finite => x.is_finite(),
            Bounds::AtLeastZero => x >= 0.0 && x.is_finite(),
            Bounds::Positive => x > 0.0 && x.is_finite(),
            Bounds::Share => (0.0..=1.0).contains(&x),
            Bounds::BelowOne => (0.0..1.0).contains(&x),
            Bounds::Between => x > 0.0 && x < 1.0,
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bounds::Finite => "a finite number",
            Bounds::AtLeastZero => "a finite number of at least 0",
            Bounds::Positive => "a finite number above 0",
            Bounds::Share => "a number from 0 to 1",
            Bounds::BelowOne => "a number from 0 to below 1",
            Bounds::Between => "a number above 0 and below 1",
        })
    }
}

/// A numeric option of an optimiser, schedule, loss, metric or callback.
///
/// ```
/// use hubel::{nn::{Bounds, Number}, optimizers::*};
/// assert_eq!(Number::new("Adam", "beta_1", 0.9f32, Bounds::BelowOne).check(), Ok(()));
/// assert!(Adam::new(1e-3).beta_1(1.5).numbers().iter().any(|n| n.check().is_err()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number {
    /// What has the option.
    pub of: &'static str,
    /// The option.
    pub option: &'static str,
    /// Its value.
    pub value: f64,
    /// What it must be.
    pub bounds: Bounds,
}

impl Number {
    /// Returns an option's value with its bounds.
    pub fn new(of: &'static str, option: &'static str, value: impl Into<f64>, bounds: Bounds) -> Self {
        Number { of, option, value: value.into(), bounds }
    }

    /// Returns an error if the number is out of bounds.
    pub fn check(&self) -> Result<(), NumberError> {
        match self.bounds.hold(self.value) {
            true => Ok(()),
            false => Err(NumberError { number: *self }),
        }
    }
}

/// Returns an error for the first number that is out of bounds.
pub(crate) fn check_numbers(numbers: impl IntoIterator<Item = Number>) -> Result<(), NumberError> {
    numbers.into_iter().try_for_each(|number| number.check())
}

/// An option's number is out of bounds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NumberError {
    /// The number, with what it must be.
    pub number: Number,
}

impl NumberError {
    fn got(&self) -> String {
        let x = self.number.value;
        // For a 32-bit option, the digits that the user wrote.
        if f64::from(x as f32) == x { (x as f32).to_string() } else { x.to_string() }
    }
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Number { of, option, bounds, .. } = self.number;
        write!(f, "{of}: wanted `{option}` to be {bounds}, got {}; choose such a value", self.got())
    }
}

impl std::error::Error for NumberError {}

impl From<NumberError> for OpError {
    fn from(e: NumberError) -> Self {
        let Number { of, option, bounds, .. } = e.number;
        OpError::new(of, format!("`{option}` to be {bounds}"), e.got(), "choose such a value")
    }
}

/// The numbers in a layer's option.
pub(crate) trait Finite {
    /// Returns the first number that is infinite or NaN.
    fn not_finite(&self) -> Option<f32> {
        None
    }
}

impl Finite for f32 {
    fn not_finite(&self) -> Option<f32> {
        Some(*self).filter(|x| !x.is_finite())
    }
}

impl<T: Finite> Finite for Option<T> {
    fn not_finite(&self) -> Option<f32> {
        self.as_ref()?.not_finite()
    }
}

impl<T: Finite> Finite for Vec<T> {
    fn not_finite(&self) -> Option<f32> {
        self.iter().find_map(T::not_finite)
    }
}

impl<T: Finite, const N: usize> Finite for [T; N] {
    fn not_finite(&self) -> Option<f32> {
        self.iter().find_map(T::not_finite)
    }
}

/// Declares that options of these types hold no numbers that could be infinite, or are checked elsewhere.
macro_rules! finite {
    ($($ty:ty),* $(,)?) => {$(impl $crate::nn::args::Finite for $ty {})*};
}
pub(crate) use finite;

finite!(bool, i32, usize, isize, u64);

/// Returns an error if one of a layer's options is infinite or NaN.
pub(crate) fn check_finite(layer: &'static str, options: &[(&'static str, Option<f32>)]) -> Result<(), OpError> {
    match options.iter().find_map(|(option, odd)| Some((*option, (*odd)?))) {
        None => Ok(()),
        Some((option, odd)) => Ok(Number::new(layer, option, odd, Bounds::Finite).check()?),
    }
}
