//! Claims about every operation, derived from the list of operations.

use crate::harness::{Run, bits_printed_by, check_sample, each_family, engine, families};
use hubel::{
    graph::{Fault, Fill},
    ops::{FAMILIES, TABLE, sample_of},
    tensor::{Philox, Purpose},
    testing,
};

#[path = "../../examples/custom_op.rs"]
mod custom_op;

#[test]
fn every_kernel_computes_what_its_reference_says_between_guards() {
    each_family(testing::kernels_agree);
}

#[test]
fn no_kernel_reaches_outside_an_array() {
    each_family(testing::indices_are_inside);
}

#[test]
fn an_index_outside_an_array_is_named() {
    let family = FAMILIES.iter().find(|f| f.name == "gather").expect("a family");
    let mut rng = Philox::new(9, Purpose::Test, 4);
    // One place too far, and one before the first.
    let faults = [
        ("reads past the end", "word = table[at];", "word = table[at + ROWS * ROW];"),
        (
            "writes before the start",
            "y[i] = bitcast<u32>(epilogue(bitcast",
            "y[0u - 1u - i] = bitcast<u32>(epilogue(bitcast",
        ),
    ];
    for (what, from, to) in faults {
        let fault = Fault { what, from, to };
        let run = Run { asserted: true, fault: Some(&fault), ..Run::default() };
        let errors = (0..30).filter_map(|_| check_sample(&(family.sample)(&mut rng), &mut rng, &run).err());
        assert!(errors.into_iter().any(|e| e.0.contains("reaches outside an array: ")), "{what}");
    }
}

#[test]
fn planted_faults_are_noticed() {
    each_family(testing::faults_are_noticed);
}

#[test]
fn bad_constructions_are_typed_errors_that_say_what_to_do() {
    each_family(|_, family| testing::bad_cases_are_refused(family));
}

#[test]
fn operations_are_equal_where_their_keys_are() {
    each_family(|_, family| testing::keys_are_equal_where_operations_are(family));
}

#[test]
fn every_gradient_is_that_of_central_differences() {
    each_family(|_, family| if family.differentiable { testing::gradients_agree(family) } else { Ok(()) });
}

#[test]
fn gpu_gradients_agree_with_the_reference_fused_and_unfused() {
    each_family(|engine, family| match family.differentiable {
        true => testing::gpu_gradients_agree(engine, family),
        false => Ok(()),
    });
}

#[test]
fn every_function_of_the_elementwise_table_computes_what_its_definition_says() {
    let mut rng = Philox::new(5, Purpose::Test, 0);
    let run = Run { guarded: true, ..Run::default() };
    for f in TABLE {
        let numbers = || [-1e3, -1.0, -1e-9, 0.0, 1e-9, 1.0, 1e3].into_iter();
        let below = numbers().flat_map(|a| numbers().map(move |b| (f.eval)(a, b, a))).any(|y| y < 0.0);
        assert!(!f.positive || !below, "{} gives numbers below 0", f.name);
        for _ in 0..4 {
            let sample = sample_of(f, &mut rng);
            check_sample(&sample, &mut rng, &run).unwrap_or_else(|e| panic!("{e}"));
        }
        let sample = sample_of(f, &mut rng);
        testing::check_case(engine(), &sample, &mut rng, 1e-6).unwrap_or_else(|e| panic!("{} {sample:?}: {e}", f.name));
    }
}

#[test]
fn equal_numbers_are_ranked_by_their_place() {
    let family = FAMILIES.iter().find(|f| f.name == "top_k").expect("top_k is a family");
    let mut rng = Philox::new(8, Purpose::Test, 3);
    let faults = [("v > best", "v >= best"), ("(v == last && c > last_at)", "false")];
    let faults = faults.map(|(from, to)| Fault { what: "breaks ties otherwise", from, to });
    let mut noticed = [false; 2];
    for _ in 0..64 {
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
fn bits_of_every_operation_as_text() {
    let hash = families().fold(0u64, |h, f| {
        let bits = testing::bits(engine(), f).unwrap_or_else(|e| panic!("{}: {e}", f.name));
        h.rotate_left(5) ^ bits
    });
    println!("bits {hash:016x}");
}

#[test]
fn the_number_of_driver_threads_changes_no_bit_of_any_result_or_gradient() {
    let default = bits_printed_by("operations::bits_of_every_operation_as_text", None);
    for threads in ["1", "2"] {
        assert_eq!(bits_printed_by("operations::bits_of_every_operation_as_text", Some(threads)), default);
    }
}

#[test]
fn an_operation_from_outside_the_crate_passes_what_its_own_must() {
    for family in [&custom_op::SQUASH, &custom_op::SQUASH_GRAD] {
        testing::check_family(engine(), family).unwrap_or_else(|e| panic!("{e}"));
    }
}
