//! Claims about every operation, derived from the list of operations.

use crate::harness::{
    Failure, Run, bits_printed_by, check_sample, each_family, engine, families, reference, run_graph, with_gpu_kernels,
};
use hubel::{
    graph::{DeviceClass, DeviceProfile, Fault, Fill, Graph, Step},
    ops::{FAMILIES, NonMaxSuppression, TABLE, sample_of},
    prelude::*,
    tensor::{Philox, Purpose, stream_id},
    testing::{self, special_values_agree_on},
};

#[path = "../../examples/custom_op.rs"]
mod custom_op;

#[test]
fn every_kernel_computes_what_its_reference_says_between_guards() {
    each_family(testing::kernels_agree);
}

#[test]
fn kernels_for_gpus_of_two_sizes_compute_what_their_references_say_between_guards() {
    each_family(|engine, family| {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 51);
        let run = Run { guarded: true, ..Run::default() };
        [16, 132, 16, 132, 16, 132].into_iter().try_for_each(|multiprocessors| {
            let engine = with_gpu_kernels(engine, multiprocessors);
            testing::check_sample(&engine, &(family.sample)(&mut rng), &mut rng, &run)
                .map_err(|e| Failure(format!("{}, {multiprocessors} multiprocessors: {e}", family.name)))
        })
    });
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
        assert!(errors.into_iter().any(|e| e.0.contains("has an index outside its array: ")), "{what}");
    }
}

#[test]
fn planted_faults_are_noticed() {
    each_family(|_, family| testing::faults_are_noticed(family));
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
fn nan_and_infinity_come_out_as_the_reference_says_forward_and_back_fused_and_unfused() {
    each_family(testing::special_values_agree);
}

#[test]
fn nan_and_infinity_come_out_of_every_function_of_the_elementwise_table_as_its_definition_says() {
    let mut rng = Philox::new(5, Purpose::Test, 1);
    let check = |f| {
        (0..2).try_for_each(|_| special_values_agree_on(engine(), &sample_of(f, &mut rng), &mut rng, &Run::default()))
    };
    let failed: Vec<String> = TABLE.iter().map(check).filter_map(|r| r.err().map(|e| e.0)).collect();
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn kernels_that_swallow_nan_or_infinity_are_noticed() {
    let relu = ("elementwise", "select(x, 0.0, bitcast<i32>(x) <= -8388608)", "max(x, 0.0)");
    let sigmoid = ("elementwise", "return nan_or_f32(x, select(y, 0.0, x < -88.0));", "return y;");
    let pool = ("max_pool2d", "U(0x7f800001u)", "U(0x7f800000u)");
    let pool_back = ("max_pool2d_grad", "bitcast<I>(v) <= I(-8388608)", "bitcast<I>(v) < I(0)");
    let softmax = ("softmax", "select(most, bitcast<V>(bits), bits > U(0x7f800000u))", "most");
    let infinite =
        ("softmax", "let scale = finite_or_nan_f32(m, 1.0 / max(s, 1.0));", "let scale = 1.0 / max(s, 1.0);");
    let losses = ("softmax_cross_entropy", "losses[row] = finite_or_nan_f32(m, loss);", "losses[row] = loss;");
    let statistics = (
        "batch_norm",
        "finite_or_nan(all.deviation, all.deviation / max(all.total, 1.0))",
        "all.deviation / max(all.total, 1.0)",
    );
    for (family, from, to) in [relu, sigmoid, pool, pool_back, softmax, infinite, losses, statistics] {
        let family = FAMILIES.iter().find(|f| f.name == family).expect("a family");
        let fault = Fault { what: "swallows it", from, to };
        let run = Run { fault: Some(&fault), ..Run::default() };
        let mut rng = Philox::new(9, Purpose::Test, 0);
        let noticed = (0..64).find_map(|_| {
            let sample = (family.sample)(&mut rng);
            special_values_agree_on(engine(), &sample, &mut rng, &run).err()
        });
        let noticed = noticed.unwrap_or_else(|| panic!("{}: `{to}` passed unnoticed", family.name)).0;
        assert!(noticed.contains("wanted"), "{}: `{to}` is no kernel: {noticed}", family.name);
    }
}

#[test]
fn zero_times_a_number_that_is_not_finite_is_nan_where_the_graph_knows_the_zero() {
    for number in [f32::NAN, f32::INFINITY, 1.0] {
        let mut g = Graph::new();
        let x = g.input("x", [Batch, 3], F32);
        let y = g.scale(x, 0.0).expect("a product");
        g.output("y", y);
        let feeds = [("x".to_owned(), HostTensor::f32([1, 3], vec![2.0, number, -1.0]).expect("three numbers"))];
        for optimize in [false, true] {
            let run = Run { optimize, ..Run::default() };
            let got = run_graph(&g, &feeds, &Step::of(1), 1, &run).expect("the graph runs")[0].to_f32();
            assert!(got[0] == 0.0 && got[2] == 0.0, "{got:?}");
            assert_eq!(got[1].is_nan(), number != 1.0, "{number} optimized {optimize}: {got:?}");
        }
    }
}

#[test]
fn nan_is_the_largest_for_argmax_and_top_k_the_first_of_several() {
    let mut g = Graph::new();
    let x = g.input("x", [Batch, 4], F32);
    let (at, [values, places]) = (g.argmax(x, 1).expect("an axis"), g.top_k(x, 3).expect("three of four"));
    [("at", at), ("values", values), ("places", places)].into_iter().for_each(|(name, v)| g.output(name, v));
    let rows = [[1.0, f32::NAN, f32::INFINITY, -f32::NAN], [-f32::NAN, 0.0, -0.0, 3.0], [-f32::INFINITY; 4]];
    let x = HostTensor::f32([3, 4], rows.concat()).expect("three rows");
    let got = run_graph(&g, &[("x".into(), x.clone())], &Step::of(3), 3, &Run::default()).expect("the graph runs");
    let exact = reference(&g, &[("x".into(), x.to_array())], &Step::of(3));
    let wanted = [vec![1.0, 0.0, 0.0], vec![], vec![1.0, 3.0, 2.0, 0.0, 3.0, 1.0, 0.0, 1.0, 2.0]];
    for k in [0, 2] {
        assert_eq!(got[k].to_f32(), wanted[k]);
        assert_eq!(exact[k].data, wanted[k].iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    }
    for values in [got[1].to_f32(), exact[1].data.iter().map(|&x| x as f32).collect()] {
        let text: Vec<String> = values.iter().map(|x| x.to_string()).collect();
        assert_eq!(text.join(" "), "NaN NaN inf NaN 3 0 -inf -inf -inf");
    }
}

#[test]
fn boxes_that_overlap_a_better_one_are_left_out_and_missing_rows_are_minus_one() {
    let mut g = Graph::new();
    let (boxes, scores) = (g.input("boxes", [Batch, 4, 4], F32), g.input("scores", [Batch, 2, 4], F32));
    let options = NonMaxSuppression { max: 3, iou_threshold: 0.5, score_threshold: Some(0.2), center: false };
    let rows = g.non_max_suppression(boxes, scores, options).expect("boxes and scores");
    g.output("rows", rows);
    // The second is the first moved by a quarter, the third its corners the other way round, the fourth far away.
    let corners = [[0.0, 0.0, 4.0, 4.0], [1.0, 0.0, 5.0, 4.0], [4.0, 4.0, 0.0, 0.0], [9.0, 9.0, 11.0, 10.0]];
    let scores = [[0.3, 0.9, 0.8, 0.5], [0.2, 0.1, f32::NAN, 0.25]];
    let feeds = [
        ("boxes".to_owned(), HostTensor::f32([1, 4, 4], corners.concat()).expect("four boxes")),
        ("scores".to_owned(), HostTensor::f32([1, 2, 4], scores.concat()).expect("two classes")),
    ];
    let got = run_graph(&g, &feeds, &Step::of(1), 1, &Run::default()).expect("the graph runs");
    let feeds = feeds.map(|(name, tensor)| (name, tensor.to_array()));
    let exact = reference(&g, &feeds, &Step::of(1));
    let (none, first, second) = ([-1.0; 3], [[0.0, 0.0, 1.0], [0.0, 0.0, 3.0]], [0.0, 1.0, 3.0]);
    let wanted = [first[0], first[1], none, second, none, none].concat();
    assert_eq!(got[0].to_f32(), wanted);
    assert_eq!(exact[0].to_host(F32).to_f32(), wanted);
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

/// Returns a tensor of which most elements are numbers that no index should be.
fn hostile(tensor: &HostTensor) -> HostTensor {
    let floats = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 4_294_967_296.0, 1e30, -1.0].map(f32::to_bits);
    let words = if tensor.dtype() == F32 { floats } else { [u32::MAX, 1 << 31, i32::MAX as u32, 1 << 24, 1 << 16, 0] };
    let mut bytes = tensor.bytes().to_vec();
    for (i, word) in bytes.chunks_exact_mut(4).enumerate().filter(|(i, _)| i % 3 < 2) {
        word.copy_from_slice(&words[i % words.len()].to_le_bytes());
    }
    HostTensor::from_bytes(tensor.shape().to_vec(), tensor.dtype(), &bytes).expect("as many as before")
}

#[test]
fn kernels_that_run_unchecked_stay_inside_and_give_the_bits_of_checked_ones_on_hostile_numbers_too() {
    let engine = |checked| Engine::builder().checked(checked).build().expect("an adapter");
    let own = [engine(true), engine(false)];
    let gpu =
        DeviceProfile { class: DeviceClass::Gpu, u64_loads: false, subgroup_lanes: 0, ..own[0].profile().clone() };
    let classes = [own.clone(), own.map(|engine| engine.with_profile(gpu.clone()))];
    each_family(|_, family| {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 37);
        let sample = (family.sample)(&mut rng);
        let (graph, ..) = testing::sample_graph(&sample)?;
        let (inputs, step) = (testing::sample_inputs(&sample, &mut rng), testing::step_of(&sample, &mut rng));
        let inputs: Vec<HostTensor> =
            inputs.iter().zip(&sample.inputs).map(|(a, (ty, _))| a.to_host(ty.dtype)).collect();
        for (class, which) in classes.iter().flat_map(|class| (0..=inputs.len()).map(move |which| (class, which))) {
            let feed = |(i, tensor): (usize, &HostTensor)| {
                (format!("in{i}"), if i == which { hostile(tensor) } else { tensor.clone() })
            };
            let feeds: Vec<(String, HostTensor)> = inputs.iter().enumerate().map(feed).collect();
            let run = |engine, run: Run| testing::run_graph(engine, &graph, &feeds, &step, sample.capacity, &run);
            run(&class[0], Run { asserted: true, ..Run::default() })?;
            let bits = |engine| -> Result<Vec<Vec<u32>>, testing::Failure> {
                let outputs = run(engine, Run { guarded: true, ..Run::default() })?;
                let of = |x: f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
                Ok(outputs.iter().map(|tensor| tensor.to_f32().into_iter().map(of).collect()).collect())
            };
            if bits(&class[0])? != bits(&class[1])? {
                return Err(testing::Failure(format!("{}: other bits with hostile input {which}", family.name)));
            }
        }
        Ok(())
    });
}

#[test]
fn only_kernels_of_the_crates_own_operations_run_unchecked_and_only_as_they_were_planned() {
    let softmax = FAMILIES.iter().find(|f| f.name == "softmax").expect("a family");
    for (family, own) in [(*softmax, true), (&custom_op::SQUASH, false)] {
        let sample = (family.sample)(&mut Philox::new(1, Purpose::Test, 0));
        let (mut graph, _, outputs) = testing::sample_graph(&sample).expect("samples are valid");
        let fused = graph.relu(outputs[0]).expect("an activation");
        graph.output("y", fused);
        for optimize in [false, true] {
            let run = Run { optimize, ..Run::default() };
            let mut plan = testing::plan_for(engine(), &graph, sample.capacity, &run).expect("a plan");
            let trusted = plan.trusted();
            assert!(trusted.len() == plan.dispatches.len() && trusted[0] == own, "{}: {trusted:?}", family.name);
            let changed = format!("{} ", plan.dispatches[0].source);
            plan.dispatches[0].source = changed.into();
            assert!(plan.trusted().iter().all(|trusted| !trusted), "{}", family.name);
        }
    }
}
