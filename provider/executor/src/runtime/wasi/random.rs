//! Random numbers from a call's seed, or real ones, each byte paid for.

use std::convert::Infallible;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _, TryRng};
use wasmtime_wasi::WasiCtxBuilder;

use crate::engine::bounds::RANDOM_BYTES;
use crate::runtime::metering::HostFuel;

/// Three independent streams of one seed, for the three sources of randomness that WASI has.
pub(crate) fn seed(builder: &mut WasiCtxBuilder, seed: [u8; 32], host_fuel: &HostFuel) {
    let stream = |number| {
        let mut rng = ChaCha20Rng::from_seed(seed);
        rng.set_stream(number);
        MeteredRng {
            rng,
            host_fuel: host_fuel.clone(),
        }
    };
    let mut third = stream(2).rng;
    let hash_seed = u128::from(third.next_u64()) << 64 | u128::from(third.next_u64());
    builder
        .secure_random(stream(0))
        .insecure_random(stream(1))
        .insecure_random_seed(hash_seed)
        .max_random_size(RANDOM_BYTES);
}

/// The system's random numbers, in requests of bounded size.
pub(crate) fn bound(builder: &mut WasiCtxBuilder) {
    builder.max_random_size(RANDOM_BYTES);
}

struct MeteredRng {
    rng: ChaCha20Rng,
    host_fuel: HostFuel,
}

impl TryRng for MeteredRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // The library takes one byte of it.
        self.host_fuel.charge_bytes(1);
        Ok(self.rng.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.host_fuel.charge_bytes(8);
        Ok(self.rng.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.host_fuel.charge_bytes(bytes.len());
        self.rng.fill_bytes(bytes);
        Ok(())
    }
}
