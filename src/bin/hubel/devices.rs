use crate::Found;
use hubel::runtime::Engine;
use serde_json::json;

/// Returns the adapters of this system.
pub fn find() -> Found {
    let adapters = Engine::adapters();
    let objects = adapters.iter().map(|a| {
        json!({
            "index": a.index, "name": a.name, "backend": a.backend, "driver": a.driver, "kind": a.kind,
            "software": a.software, "subgroup_lanes": a.subgroup_lanes, "f16": a.f16,
            "cooperative_matrix": a.cooperative_matrix,
        })
    });
    let lines: Vec<String> = adapters
        .iter()
        .map(|a| {
            let has = |there: bool, name: &str| if there { format!(", {name}") } else { String::new() };
            let [from, to] = a.subgroup_lanes;
            let lanes = if to > 0 { format!("subgroups of {from} to {to}") } else { "no subgroups".into() };
            format!("{a}\n   {lanes}{}{}", has(a.f16, "f16"), has(a.cooperative_matrix, "cooperative matrices"))
        })
        .collect();
    let text = match lines.is_empty() {
        true => {
            "no adapter found: networks run on the reference evaluator; install a Vulkan, Metal or DX12 driver".into()
        }
        false => lines.join("\n"),
    };
    Found::new(json!({ "adapters": objects.collect::<Vec<_>>() }), text)
}
