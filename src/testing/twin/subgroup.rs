//! What the lanes of a subgroup do together.

use super::{
    code::{Gather, Reg, Scan, Subgroup, Together},
    error::FaultKind,
};
use std::ops::Range;

/// Runs an operation on some lanes, all of a subgroup; the registers have `lanes` words each. An error names a lane.
pub(super) fn run(
    operation: &Subgroup,
    registers: &mut [u32],
    lanes: usize,
    some: Range<usize>,
) -> Result<(), (FaultKind, usize)> {
    let get = |registers: &[u32], r: Reg, lane: usize| registers[r as usize * lanes + lane];
    let from = operation.from.iter().copied();
    match &operation.what {
        Together::Ballot => {
            let voter = |lane: &usize| operation.from.first().is_none_or(|&r| get(registers, r, *lane) != 0);
            let mut words = [0u32; 4];
            for lane in some.clone().filter(voter) {
                let bit = lane - some.start;
                if let Some(word) = words.get_mut(bit / 32) {
                    *word |= 1 << (bit % 32);
                }
            }
            for (&to, word) in operation.to.iter().zip(words) {
                registers[to as usize * lanes..][some.clone()].fill(word);
            }
        }
        Together::Fold(op, scan, neutral) => {
            for (&to, from) in operation.to.iter().zip(from) {
                let mut value = *neutral;
                for lane in some.clone() {
                    let mut next = [0];
                    op.run(&mut next, [&[value], &[get(registers, from, lane)]]);
                    if *scan != Scan::All {
                        registers[to as usize * lanes + lane] = if *scan == Scan::UpTo { next[0] } else { value };
                    }
                    value = next[0];
                }
                if *scan == Scan::All {
                    registers[to as usize * lanes..][some.clone()].fill(value);
                }
            }
        }
        Together::Gather(gather) => {
            for lane in some.clone() {
                let own = (lane - some.start) as u32;
                let other = match *gather {
                    Gather::First => 0,
                    Gather::At(r) => get(registers, r, lane),
                    Gather::Down(r) => own.wrapping_add(get(registers, r, lane)),
                    Gather::Up(r) => own.wrapping_sub(get(registers, r, lane)),
                    Gather::Xor(r) => own ^ get(registers, r, lane),
                };
                let length = some.len() as u32;
                if other >= length {
                    return Err((FaultKind::Outside { index: other, length }, lane));
                }
                for (&to, from) in operation.to.iter().zip(from.clone()) {
                    let value = get(registers, from, some.start + other as usize);
                    registers[to as usize * lanes + lane] = value;
                }
            }
        }
    }
    Ok(())
}
