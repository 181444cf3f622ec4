//! Counters for people.

use std::fmt::Write;

use dlambda_mixnet::NetworkCounters;

/// One line per layer and per gateway.
pub(crate) fn table(counters: &NetworkCounters) -> String {
    let mut table = format!(
        "{:<10}{:>9}{:>9}{:>8}{:>8}{:>8}{:>9}{:>10}{:>12}\n",
        "layer", "in", "out", "lost", "replay", "bad", "delay ms", "kB", "ms/packet"
    );
    for layer in counters.layers() {
        let kept = layer
            .received
            .saturating_sub(layer.dropped + layer.replayed + layer.malformed);
        let _ = writeln!(
            table,
            "{:<10}{:>9}{:>9}{:>8}{:>8}{:>8}{:>9}{:>10}{:>12}",
            format!("mix {}", layer.layer),
            layer.received,
            layer.forwarded,
            layer.dropped,
            layer.replayed,
            layer.malformed,
            layer.delay_ms,
            layer.bytes / 1000,
            layer.delay_ms.checked_div(kept).unwrap_or(0),
        );
    }
    let _ = writeln!(
        table,
        "{:<10}{:>9}{:>9}{:>8}{:>8}{:>8}{:>9}{:>10}{:>12}",
        "gateway", "in", "out", "lost", "final", "acks", "clients", "kB", "stored"
    );
    for gateway in &counters.gateways {
        let _ = writeln!(
            table,
            "{:<10}{:>9}{:>9}{:>8}{:>8}{:>8}{:>9}{:>10}{:>12}",
            gateway.node.name,
            gateway.node.received,
            gateway.node.forwarded,
            gateway.node.dropped,
            gateway.node.r#final,
            gateway.node.acks,
            gateway.sessions,
            gateway.node.bytes / 1000,
            gateway.stored,
        );
    }
    table
}
