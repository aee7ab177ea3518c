//! Kernels on the host twin.

use hubel::{
    ops::FAMILIES,
    tensor::{Philox, Purpose, stream_id},
    testing::{profiles, twin::Trial},
};

#[test]
fn explore() {
    let only = std::env::var("ONLY").ok();
    for family in FAMILIES.iter().filter(|f| only.as_ref().is_none_or(|o| o.split(' ').any(|n| n == f.name))) {
        let start = std::time::Instant::now();
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 30);
        let (mut flops, mut n) = (Vec::new(), 0);
        let mut repeated = 0;
        let mut failed = std::collections::BTreeMap::new();
        for _ in 0..std::env::var("N").map_or(4, |n| n.parse().unwrap()) {
            let trial = Trial::new(&(family.sample)(&mut rng), &mut rng).expect("a sample");
            flops.push(trial.flops());
            for profile in profiles() {
                for candidate in trial.candidates(&profile) {
                    n += 1;
                    match trial.check(&candidate, &profile) {
                        Err(e) => {
                            failed.entry(e.to_string()).or_insert((candidate.variant.clone(), profile.class));
                        }
                        Ok(works) => {
                            for (w, d) in works.iter().zip(&candidate.dispatches) {
                                let stated = d.iterations_at(trial.sample().n);
                                if u64::from(w.turns) > stated {
                                    let k = d.kernel.clone();
                                    let v = (candidate.variant.clone(), profile.class);
                                    failed.entry(format!("{k} turns {} stated {stated}", w.turns)).or_insert(v);
                                }
                                repeated += u64::from(w.repeated > 0);
                            }
                        }
                    }
                }
            }
        }
        println!("{} {n} candidates {:.2?} repeated {repeated} flops {flops:?}", family.name, start.elapsed());
        for (e, v) in failed.iter().take(6) {
            println!("    {v:?}: {}", e.chars().take(300).collect::<String>());
        }
    }
}
