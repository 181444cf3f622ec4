//! The machine that a provider runs on, as it is advertised.

use dlambda_proto::{Cpu, Specs};

use super::Machine;

/// This machine, as coarsely as a plan's buyer needs it.
pub(crate) fn specs(told: &Machine) -> Specs {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Specs {
        cpu: Cpu {
            cores: u16::try_from(cores).unwrap_or(u16::MAX),
            architecture: std::env::consts::ARCH.to_owned(),
        },
        memory: memory_mib(),
        gpu: told.gpu.clone(),
        tee: told.tee.clone(),
        gpu_vram_mib: told.gpu_vram_mib,
        region: told.region.clone(),
    }
}

/// Memory in MiB, rounded down to a power of two.
fn memory_mib() -> u64 {
    let mib = rustix::system::sysinfo().totalram >> 20;
    mib.checked_ilog2().map_or(0, |log| 1 << log)
}
