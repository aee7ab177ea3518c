//! How many multiprocessors a GPU has, and how much memory it moves for each, which wgpu does not say.

use crate::graph::{BYTES_PER_CYCLE, DISCRETE_MULTIPROCESSORS};

/// Multiprocessors of an integrated GPU that is not known by its name.
const INTEGRATED: u32 = 16;

/// Parts of adapters' names with their streaming multiprocessors (NVIDIA), compute units (AMD), Xe cores (Intel) or cores (Apple),
/// from the vendors' data sheets; of several that match, the longest.
const KNOWN: [(&str, u32); 74] = [
    ("GTX 1050", 5),
    ("GTX 1060", 10),
    ("GTX 1070", 15),
    ("GTX 1080", 20),
    ("GTX 1080 Ti", 28),
    ("GTX 1650", 14),
    ("GTX 1660", 22),
    ("RTX 2060", 30),
    ("RTX 2070", 36),
    ("RTX 2080", 46),
    ("RTX 2080 Ti", 68),
    ("RTX 3050", 20),
    ("RTX 3060", 28),
    ("RTX 3060 Ti", 38),
    ("RTX 3070", 46),
    ("RTX 3070 Ti", 48),
    ("RTX 3080", 68),
    ("RTX 3080 Ti", 80),
    ("RTX 3090", 82),
    ("RTX 3090 Ti", 84),
    ("RTX 4050", 20),
    ("RTX 4060", 24),
    ("RTX 4060 Ti", 34),
    ("RTX 4070", 46),
    ("RTX 4070 Ti", 60),
    ("RTX 4080", 76),
    ("RTX 4090", 128),
    ("RTX 5060", 30),
    ("RTX 5060 Ti", 36),
    ("RTX 5070", 48),
    ("RTX 5070 Ti", 70),
    ("RTX 5080", 84),
    ("RTX 5090", 170),
    ("RTX A4000", 48),
    ("RTX A6000", 84),
    ("Tesla T4", 40),
    ("NVIDIA L4", 58),
    ("NVIDIA L40", 142),
    ("V100", 80),
    ("A10", 72),
    ("A100", 108),
    ("H100", 132),
    ("H200", 132),
    ("GB200", 148),
    ("B200", 148),
    ("RX 580", 36),
    ("RX 5700", 36),
    ("RX 5700 XT", 40),
    ("RX 6600", 28),
    ("RX 6600 XT", 32),
    ("RX 6700 XT", 40),
    ("RX 6800", 60),
    ("RX 6800 XT", 72),
    ("RX 6900 XT", 80),
    ("RX 7600", 32),
    ("RX 7700 XT", 54),
    ("RX 7800 XT", 60),
    ("RX 7900 GRE", 80),
    ("RX 7900 XT", 84),
    ("RX 7900 XTX", 96),
    ("RX 9060 XT", 32),
    ("RX 9070", 56),
    ("RX 9070 XT", 64),
    ("Arc A380", 8),
    ("Arc A750", 28),
    ("Arc A770", 32),
    ("Arc B570", 18),
    ("Arc B580", 20),
    ("Apple M1", 8),
    ("Apple M2", 10),
    ("Apple M3", 10),
    ("Apple M4", 10),
    ("Apple M1 Max", 32),
    ("Apple M1 Pro", 16),
];

/// Parts of the names of adapters with stacked memory (HBM), and the bytes that it moves in a cycle for each multiprocessor.
const STACKED: [(&str, u32); 5] = [("V100", 7), ("A100", 8), ("H100", 12), ("H200", 16), ("B200", 22)];

/// Returns the bytes that an adapter's memory moves in a cycle for each multiprocessor.
pub(super) fn bytes_per_cycle(name: &str) -> u32 {
    STACKED.iter().find(|(part, _)| name.contains(part)).map_or(BYTES_PER_CYCLE, |(_, bytes)| *bytes)
}

/// Returns the multiprocessors of an adapter: what `HUBEL_UNITS` says, or else what its name does.
pub(super) fn multiprocessors(adapter: &wgpu::AdapterInfo) -> u32 {
    let told = std::env::var("HUBEL_UNITS").ok().and_then(|text| text.parse().ok()).filter(|&n| n > 0);
    told.unwrap_or_else(|| of(&adapter.name, adapter.device_type))
}

fn of(name: &str, kind: wgpu::DeviceType) -> u32 {
    if kind == wgpu::DeviceType::Cpu {
        return 1;
    }
    let known = KNOWN.iter().filter(|(part, _)| name.contains(part)).max_by_key(|(part, _)| part.len());
    known.map_or(if kind == wgpu::DeviceType::IntegratedGpu { INTEGRATED } else { DISCRETE_MULTIPROCESSORS }, |k| k.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_counts_and_unknown_ones_have_numbers_by_kind() {
        let discrete = wgpu::DeviceType::DiscreteGpu;
        assert_eq!(of("NVIDIA GeForce RTX 3080 Ti", discrete), 80);
        assert_eq!(of("AMD Radeon RX 7900 XTX (RADV NAVI31)", discrete), 96);
        assert_eq!(of("NVIDIA H100 80GB HBM3", discrete), 132);
        assert_eq!(of("A card of next year", discrete), DISCRETE_MULTIPROCESSORS);
        assert_eq!(of("llvmpipe (LLVM 15.0.6, 256 bits)", wgpu::DeviceType::Cpu), 1);
        assert_eq!(of("Intel(R) UHD Graphics", wgpu::DeviceType::IntegratedGpu), INTEGRATED);
        let bytes = ["NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4060", "A card of next year"].map(bytes_per_cycle);
        assert_eq!(bytes, [12, 4, 4]);
    }
}
