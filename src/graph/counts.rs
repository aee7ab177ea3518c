use std::ops::{Add, Mul};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often a kernel does what takes time, 8 lanes at once, or the nanoseconds that each of it takes.
        #[derive(Debug, Clone, Copy, Default, PartialEq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: f64,)*
        }

        impl Counts {
            $(
                #[doc = concat!("Returns so many of `", stringify!($name), "`.")]
                pub fn $name(n: usize) -> Counts {
                    Counts { $name: n as f64, ..Counts::default() }
                }
            )*

            /// The names of the numbers.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// Returns the numbers.
            pub fn values(self) -> Vec<f64> {
                vec![$(self.$name),*]
            }

            /// Returns the nanoseconds, of which each thing takes so many.
            pub fn time(self, each: &Counts) -> f64 {
                0.0 $(+ self.$name * each.$name)*
            }

            /// Returns so many loads, of a uniform buffer or not.
            pub fn loads(n: usize, uniform: bool) -> Counts {
                if uniform { Counts::uniform_load(n) } else { Counts::load(n) }
            }
        }

        impl Add for Counts {
            type Output = Counts;

            fn add(self, other: Counts) -> Counts {
                Counts { $($name: self.$name + other.$name),* }
            }
        }

        impl Mul<f64> for Counts {
            type Output = Counts;

            fn mul(self, n: f64) -> Counts {
                Counts { $($name: self.$name * n),* }
            }
        }
    };
}

counts! {
    /// Loads of an element, or of a pair, from a storage buffer.
    load,
    /// Loads from a uniform buffer.
    uniform_load,
    /// Values of a lane that all lanes get.
    broadcast,
    /// Multiply-adds to a sum in a register, the first of an iteration of the innermost loop.
    madd,
    /// Further multiply-adds to the same sum.
    next_madd,
    /// Stores.
    store,
    /// Places of which the address is computed before the innermost loop.
    enter,
    /// Other instructions, at the start of a tile, a strip or an iteration.
    instruction,
    /// Launches.
    launch,
}
