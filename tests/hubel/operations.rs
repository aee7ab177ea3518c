//! Claims about every operation, derived from the list of operations.

use crate::harness::{Run, check_sample, families};
use hubel::{
    graph::{Family, Fault, Fill, Graph},
    ops::{TABLE, sample_of},
    tensor::{Philox, Purpose},
};
use std::collections::HashSet;

const SHAPES: usize = 64;

fn rng(family: &Family, stream: u32) -> Philox {
    Philox::new(u64::from(hubel::tensor::stream_id(family.name)), Purpose::Test, stream)
}

fn failures(check: impl Fn(&'static Family) -> Result<(), String>) {
    let failed: Vec<String> = families().filter_map(|f| check(f).err().map(|e| format!("{}: {e}", f.name))).collect();
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn every_kernel_computes_what_its_reference_says_between_guards() {
    let run = Run { guarded: true, ..Run::default() };
    failures(|family| {
        let mut rng = rng(family, 0);
        let mut distinct = HashSet::new();
        for i in 0..SHAPES * 20 {
            let sample = (family.sample)(&mut rng);
            let key = format!("{}{:?}{}", sample.op.key(), sample.inputs, sample.n);
            if !distinct.insert(key) {
                continue;
            }
            check_sample(&sample, &mut rng, &run).map_err(|e| format!("sample {i}: {e}"))?;
            if distinct.len() == SHAPES {
                return Ok(());
            }
        }
        Err(format!("only {} distinct samples", distinct.len()))
    });
}

#[test]
fn every_function_of_the_elementwise_table_computes_what_its_definition_says() {
    let mut rng = Philox::new(5, Purpose::Test, 0);
    let run = Run { guarded: true, ..Run::default() };
    for f in TABLE {
        for _ in 0..4 {
            let sample = sample_of(f, &mut rng);
            check_sample(&sample, &mut rng, &run).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn equal_numbers_are_ranked_by_their_place() {
    let family = hubel::ops::FAMILIES.iter().find(|f| f.name == "top_k").expect("top_k is a family");
    let mut rng = rng(family, 3);
    let faults = [("v > best", "v >= best"), ("(v == last && c > last_at)", "false")];
    let faults = faults.map(|(from, to)| Fault { what: "breaks ties otherwise", from, to });
    let mut noticed = [false; 2];
    for _ in 0..SHAPES {
        let mut sample = (family.sample)(&mut rng);
        sample.inputs[0].1 = Fill::Index(4);
        let run = Run { guarded: true, ..Run::default() };
        check_sample(&sample, &mut rng, &run).unwrap_or_else(|e| panic!("{e}"));
        for (noticed, fault) in noticed.iter_mut().zip(&faults) {
            let run = Run { fault: Some(fault), ..run.clone() };
            *noticed = *noticed || check_sample(&sample, &mut rng, &run).is_err();
        }
    }
    assert_eq!(noticed, [true; 2]);
}

#[test]
fn planted_faults_are_noticed() {
    failures(|family| {
        for fault in family.faults {
            let mut rng = rng(family, 1);
            let (mut met, mut noticed) = (0, false);
            for _ in 0..SHAPES * 4 {
                let sample = (family.sample)(&mut rng);
                let (graph, ..) = crate::harness::sample_graph(&sample);
                let plan = crate::harness::plan_for(&graph, sample.capacity, &Run::default());
                if !plan.dispatches.iter().any(|d| d.source.contains(fault.from)) {
                    continue;
                }
                met += 1;
                let run = Run { guarded: true, fault: Some(fault), ..Run::default() };
                if check_sample(&sample, &mut rng, &run).is_err() {
                    noticed = true;
                    break;
                }
            }
            if !noticed {
                return Err(format!("`{}` passed {met} samples unnoticed", fault.what));
            }
        }
        Ok(())
    });
}

#[test]
fn bad_constructions_are_typed_errors_that_say_what_to_do() {
    failures(|family| {
        for bad in family.bad {
            match (bad.build)(&mut Graph::new()) {
                Ok(_) => return Err(format!("{} is accepted", bad.what)),
                Err(e) if e.op.is_empty() || e.wanted.is_empty() || e.got.is_empty() || e.advice.is_empty() => {
                    return Err(format!("{}: an empty part in {e:?}", bad.what));
                }
                Err(_) => {}
            }
        }
        if family.bad.is_empty() { Err("no bad case".into()) } else { Ok(()) }
    });
}

#[test]
fn operations_are_equal_where_their_keys_are() {
    failures(|family| {
        let mut rng = rng(family, 2);
        for _ in 0..SHAPES {
            let (a, b) = ((family.sample)(&mut rng), (family.sample)(&mut rng));
            let same_key = (a.op.name(), a.op.key()) == (b.op.name(), b.op.key());
            if same_key != (format!("{:?}", a.op) == format!("{:?}", b.op)) {
                return Err(format!("{:?} and {:?} have keys `{}` and `{}`", a.op, b.op, a.op.key(), b.op.key()));
            }
        }
        Ok(())
    });
}
