//! Kernels on the host twin: what they compute, and that it finds what is planted in them.

use crate::harness::families;
use hubel::{
    graph::{Candidate, DeviceProfile, Family, Sample},
    kernels::max_iterations,
    tensor::{Philox, Purpose, stream_id},
    testing::{
        Failure,
        mutate::{Change, Mutant, mutants},
        profiles,
        twin::{Buffer, CandidateError, Fault, FaultKind, Trial, Twin, TwinError, Work},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    thread,
};

/// Samples of each operation.
const SAMPLES: usize = 4;
/// Floating-point operations above which a sample is left out.
const MAX_FLOPS: u64 = 200_000;
/// Returns the kinds of adapters, with grids folded into two axes from 5 workgroups on.
fn folded() -> impl Iterator<Item = DeviceProfile> {
    profiles().into_iter().map(|profile| DeviceProfile { max_groups: 5, ..profile })
}

/// Returns the families' results, on as many threads as there are processors.
fn each<T: Send>(run: impl Fn(&'static Family, &mut Philox) -> T + Sync) -> Vec<T> {
    let (rest, results) = (Mutex::new(families()), Mutex::new(Vec::new()));
    let next = || rest.lock().expect("no thread panics here").next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some(family) = next() {
                    let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 30);
                    let result = run(family, &mut rng);
                    results.lock().expect("no thread panics here").push(result);
                }
            });
        }
    });
    results.into_inner().expect("no thread panics here")
}

/// What was run on the twin.
#[derive(Default)]
struct Tally {
    candidates: usize,
    fused: usize,
    samples: usize,
    large: usize,
    failed: Vec<String>,
}

fn run_family(family: &Family, rng: &mut Philox) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for _ in 0..SAMPLES {
        let sample = (family.sample)(rng);
        let trial = Trial::new(&sample, rng)?;
        tally.samples += 1;
        if trial.flops() > MAX_FLOPS {
            tally.large += 1;
            continue;
        }
        for profile in folded() {
            let fused = trial.fused(&profile, rng)?;
            tally.fused += usize::from(fused.is_some());
            for trial in [Some(&trial), fused.as_ref()].into_iter().flatten() {
                for candidate in trial.candidates(&profile) {
                    tally.candidates += 1;
                    let wrong = match trial.check(&candidate, &profile) {
                        Ok(works) => more_turns(&candidate, &works, sample.n, profile.max_groups),
                        Err(e) => Some(e.to_string()),
                    };
                    let name = || format!("{} {} {:?}", family.name, candidate.variant, profile.class);
                    tally.failed.extend(wrong.map(|wrong| format!("{}: {wrong}", name())));
                }
            }
        }
    }
    Ok(tally)
}

/// Returns what is wrong with the turns that are derived of a candidate's text: fewer than it takes.
fn more_turns(candidate: &Candidate, works: &[Work], n: usize, max_groups: u32) -> Option<String> {
    candidate.dispatches.iter().zip(works).find_map(|(dispatch, work)| {
        let (derived, turns) = (max_iterations(dispatch, n, max_groups), u64::from(work.turns));
        let wrong = !derived.as_ref().is_ok_and(|&derived| turns <= derived);
        wrong.then(|| format!("{} takes {turns} turns, derived are {derived:?}", dispatch.kernel))
    })
}

#[test]
fn every_candidate_computes_what_its_reference_says_on_the_twin_without_a_fault() {
    let mut all = Tally::default();
    for tally in each(run_family) {
        let tally = tally.unwrap_or_else(|e| panic!("{e}"));
        all.candidates += tally.candidates;
        all.fused += tally.fused;
        all.samples += tally.samples;
        all.large += tally.large;
        all.failed.extend(tally.failed);
    }
    assert!(all.failed.is_empty(), "{} of {} candidates:\n{}", all.failed.len(), all.candidates, all.failed.join("\n"));
    assert!(all.large * 6 < all.samples, "{} of {} samples are too large", all.large, all.samples);
    assert!(
        std::env::var_os("HUBEL_OPERATIONS").is_some() || all.fused > 100,
        "only {} samples with epilogues",
        all.fused
    );
}

/// A change of a kernel that makes it wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Plant {
    /// Leaves this barrier out, counted from the kernel's first.
    NoBarrier(usize),
    /// Leaves a write to this variable of the workgroup out.
    NoWrite(String),
    /// Reads one element further.
    OneTooFar,
}

impl Plant {
    fn is_found_as(&self, kind: FaultKind) -> bool {
        match self {
            Plant::NoBarrier(_) => matches!(kind, FaultKind::Conflict { .. }),
            Plant::NoWrite(_) => kind == FaultKind::Unwritten,
            Plant::OneTooFar => matches!(kind, FaultKind::Outside { .. }),
        }
    }
}

/// Returns kernels that are wrong in one place each.
fn planted(source: &str) -> Vec<(Plant, String)> {
    let declared = |space: &str, name: &str| source.contains(&format!("var<{space}> {name}:"));
    let mut barriers = 0..;
    let plant = |mutant: Mutant| {
        let code = &source[mutant.range.clone()];
        let variable = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        let plant = match mutant.change {
            Change::NoBarrier => Plant::NoBarrier(barriers.next()?),
            Change::NoStore if declared("workgroup", variable) => Plant::NoWrite(variable.to_owned()),
            // Lanes that write one element further meet their neighbours first.
            Change::ReadsFurther if declared("storage, read", variable) => Plant::OneTooFar,
            _ => return None,
        };
        Some((plant, mutant.apply(source)))
    };
    mutants(source).expect("kernels are valid").into_iter().filter_map(plant).collect()
}

/// How often a plant is tried on a sample for a kind of adapter at most.
const TRIES: usize = 2;

/// For each plant in each kernel with workgroup memory how often it was tried, and whether it was found.
type Plants = BTreeMap<(String, Plant), (usize, bool)>;

fn plant(family: &Family, rng: &mut Philox) -> Plants {
    let mut plants = Plants::new();
    let mut most = 0;
    for _ in 0..8 {
        // A smaller batch leaves room behind its tensors.
        let sample = (family.sample)(rng);
        let trial = Trial::new(&Sample { n: sample.capacity, ..sample }, rng).expect("samples are valid");
        for profile in profiles().into_iter().filter(|_| trial.flops() <= MAX_FLOPS / 2) {
            most += TRIES;
            for candidate in trial.candidates(&profile) {
                for (k, dispatch) in candidate.dispatches.iter().enumerate() {
                    if dispatch.source.contains("var<workgroup>") {
                        plant_in((&trial, &profile), (&candidate, k), most, &mut plants);
                    }
                }
            }
        }
    }
    plants
}

/// Plants all faults in launch `k` of a candidate that were not found yet and tried less than `most` times.
fn plant_in(
    (trial, profile): (&Trial, &DeviceProfile),
    (candidate, k): (&Candidate, usize),
    most: usize,
    plants: &mut Plants,
) {
    let dispatch = &candidate.dispatches[k];
    // Products have one core, whatever the operation.
    let name = if dispatch.source.contains("tile_a") { "product" } else { &dispatch.kernel };
    for (plant, source) in planted(&dispatch.source) {
        let (tries, found) = plants.entry((name.to_owned(), plant.clone())).or_default();
        if !*found && *tries < most {
            let mut wrong = candidate.clone();
            wrong.dispatches[k].source = source.into();
            *tries += 1;
            *found = match trial.check(&wrong, profile) {
                Err(CandidateError::Kernel { error: TwinError::Fault(fault), .. }) => plant.is_found_as(fault.kind),
                Err(CandidateError::Kernel { error, .. }) => panic!("{error}"),
                _ => false,
            };
        }
    }
}

#[test]
fn faults_planted_in_every_kernel_with_workgroup_memory_are_found() {
    let mut all = Plants::new();
    for plants in each(plant) {
        for (place, found) in plants {
            let known: &mut (usize, bool) = all.entry(place).or_default();
            *known = (known.0 + found.0, known.1 || found.1);
        }
    }
    let missed: Vec<_> = all.iter().filter(|(_, (_, found))| !found).collect();
    assert!(missed.is_empty(), "not found: {missed:#?}");
    let kernels: BTreeSet<&str> = all.keys().map(|(kernel, _)| kernel.as_str()).collect();
    let whole = std::env::var_os("HUBEL_OPERATIONS").is_none();
    assert!(!whole || kernels.len() > 12, "only {kernels:?}");
}

/// Returns a kernel of four lanes with `y` in a buffer, `w` in workgroup memory and this body.
fn kernel(body: &str) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
var<workgroup> w: array<u32, 4>;
@compute @workgroup_size(4)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    {body}
}}"
    )
}

#[test]
fn each_kind_of_fault_is_found_with_its_variable_and_line() {
    let outside = FaultKind::Outside { index: 4, length: 4 };
    let conflict = |other| FaultKind::Conflict { other: Some(other) };
    let cases = [
        ("y[lane + 1u] = 1u;", outside, "y", 3),
        ("w[lane + 1u] = 1u;", outside, "w", 3),
        ("var a: array<u32, 4>; a[lane + 1u] = 1u;", outside, "a", 3),
        ("let v = vec4<u32>(lane); y[lane] = v[lane + 1u];", outside, "v", 3),
        ("y[lane] = y[3u - lane];", FaultKind::Unwritten, "y", 0),
        ("y[lane] = w[lane];", FaultKind::Unwritten, "w", 0),
        ("w[lane] = lane; y[lane] = w[3u - lane];", conflict(3), "w", 0),
        ("w[lane] = 1u; workgroupBarrier(); y[lane] = w[lane ^ 1u]; w[lane] = 2u;", conflict(1), "w", 0),
        ("w[0] = 1u;", conflict(0), "w", 1),
        ("y[lane / 2u] = lane;", conflict(0), "y", 1),
        ("y[lane] = lane; workgroupBarrier(); y[lane] = y[lane ^ 1u];", conflict(1), "y", 0),
        ("y[lane] = id.x;", FaultKind::Groups { other: Some(0) }, "y", 0),
        ("if (lane > 1u) { workgroupBarrier(); }", FaultKind::Barrier, "barrier", 2),
        ("if (lane > 1u) { return; } workgroupBarrier();", FaultKind::Barrier, "barrier", 0),
        ("if (lane > 1u) { y[lane] = subgroupAdd(lane); }", FaultKind::Subgroup, "subgroup", 2),
        ("loop { if (lane > 9u) { break; } }", FaultKind::Endless, "loop", 0),
    ];
    for (body, kind, variable, lane) in cases {
        let twin = Twin::new(&kernel(body), &[]).unwrap_or_else(|e| panic!("{body}: {e}"));
        let Err(TwinError::Fault(fault)) = twin.run([2, 1], 0, &mut [Buffer::unwritten(16)]) else {
            panic!("{body}: no fault");
        };
        let Fault { line, ref text, .. } = *fault;
        assert_eq!(
            (fault.kind, fault.variable.as_str(), fault.lane, line),
            (kind, variable, lane, 5),
            "{body}: {fault}"
        );
        assert!(body.contains(text.trim_end_matches("()")), "{fault}");
    }
}

#[test]
fn what_lanes_may_do_is_no_fault() {
    let bodies = [
        ("w[lane] = lane; workgroupBarrier(); y[4u * id.x + lane] = w[3u - lane];", 0),
        ("y[4u * id.x + lane] = 1u; storageBarrier(); y[4u * id.x + lane] = y[4u * id.x + (lane ^ 0u)] + 1u;", 0),
        ("y[4u * id.x + lane] = subgroupAdd(lane);", 0),
        ("if (id.x == 1u) { workgroupBarrier(); }", 0),
        // The same bits.
        ("y[0] = 7u;", 7),
    ];
    for (body, repeated) in bodies {
        let twin = Twin::new(&kernel(body), &[]).unwrap_or_else(|e| panic!("{body}: {e}"));
        let work = twin.run([2, 1], 0, &mut [Buffer::unwritten(32)]).unwrap_or_else(|e| panic!("{body}: {e}"));
        assert_eq!((work.turns, work.repeated), (0, repeated), "{body}");
    }
}

#[test]
fn what_the_twin_cannot_run_is_a_typed_error() {
    let atomic = "@group(0) @binding(0) var<storage, read_write> y: atomic<u32>;
        @compute @workgroup_size(1) fn main() { atomicAdd(&y, 1u); }";
    assert!(matches!(Twin::new(atomic, &[]), Err(TwinError::Unsupported { line: 2, .. })));
    assert!(matches!(Twin::new("fn main() {", &[]), Err(TwinError::Source(_))));
    assert!(matches!(Twin::new(&kernel(""), &[("NONE", 1.0)]), Err(TwinError::Source(_))));
    let twin = Twin::new(&kernel("y[lane] = lane;"), &[]).expect("a kernel");
    assert!(matches!(twin.run([1, 1], 0, &mut []), Err(TwinError::Binding { binding: 0, .. })));
}

const LANGUAGE: &str = "
@group(0) @binding(0) var<uniform> n: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<array<u32, 12>>;
override SEVEN: u32;
var<private> counter: u32 = 5u;
struct Pair { a: vec3<f32>, b: u32 }
fn bump(p: ptr<function, u32>, by: u32) -> u32 {
    *p += by;
    return *p * 2u;
}
fn early(x: u32) -> u32 {
    if (x > 2u) { return 100u; }
    for (var i = 0u; ; i++) {
        if (i == x) { return i + 10u; }
    }
    return 0u;
}
fn chosen(x: u32) -> u32 {
    var a = 0u;
    switch x {
        case 0u, 1u: { a = SEVEN; }
        case 2u: { a = 8u; }
        default: { a = 9u; }
    }
    return a;
}
fn odd(x: u32) -> u32 {
    var i = 0u;
    var s = 0u;
    loop {
        i++;
        if (i == 2u) { continue; }
        s += i;
        continuing {
            break if i >= x + 2u;
        }
    }
    return s;
}
@compute @workgroup_size(4)
fn main(@builtin(local_invocation_index) lane: u32) {
    var v = lane;
    let d = bump(&v, 3u);
    y[lane][0] = d + v;
    y[lane][1] = early(lane);
    y[lane][2] = chosen(lane);
    y[lane][3] = odd(lane);
    y[lane][4] = bitcast<u32>(i32(lane) * -7 / 2) + bitcast<u32>(i32(lane) * -7 % 4);
    let wide = (u64(lane) << 33u) + u64(5u);
    y[lane][5] = u32(wide >> 32u) | u32(wide);
    var a = array<u32, 4>(1u, 2u, 3u, 4u);
    a[lane] = 9u;
    let w = vec4<u32>(a[0], a[1], a[2], a[3]);
    y[lane][6] = w[3u - lane] * 10u + a[lane];
    var p: Pair;
    p.a.y = 1.5;
    p.b = lane;
    let q = p;
    y[lane][7] = u32(q.a.y * 2.0 + f32(q.b));
    let z = vec3<f32>(1.0, 2.0, 3.0).zyx * 2.0;
    y[lane][8] = u32(dot(z, vec3<f32>(1.0, 10.0, 100.0))) + select(0u, 1u, all(z > vec3<f32>(1.0)));
    counter += lane;
    y[lane][9] = counter;
    y[lane][10] = subgroupAdd(lane) + 10u * subgroupBroadcast(lane, 1u);
    y[lane][11] = n[lane] + u32(clamp(exp2(f32(lane)), 2.0, 4.0)) + (lane << 4u);
}";

#[test]
fn the_twin_computes_what_wgsl_says() {
    let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let mut buffers = [Buffer::filled(&bytes(&[3, 1, 4, 1])), Buffer::unwritten(4 * 48)];
    let twin = Twin::new(LANGUAGE, &[("SEVEN", 7.0)]).unwrap_or_else(|e| panic!("{e}"));
    let work = twin.run([1, 1], 2, &mut buffers).unwrap_or_else(|e| panic!("{e}"));
    let columns: [[i64; 4]; 12] = [
        [9, 12, 15, 18],
        [10, 11, 12, 100],
        [7, 7, 8, 9],
        [1, 4, 8, 13],
        [0, -3 - 3, -7 - 2, -10 - 1],
        [5, 7, 5, 7],
        [49, 39, 29, 19],
        [3, 4, 5, 6],
        [247; 4],
        [5, 6, 7, 8],
        [1 + 10, 1 + 10, 5 + 30, 5 + 30],
        [3 + 2, 1 + 2 + 16, 4 + 4 + 32, 1 + 4 + 48],
    ];
    let wanted: Vec<u32> = (0..4).flat_map(|lane| columns.iter().map(move |column| column[lane] as u32)).collect();
    let got: Vec<u32> = buffers[1].bytes().chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    for lane in 0..4 {
        assert_eq!(got[12 * lane..][..12], wanted[12 * lane..][..12], "lane {lane}");
    }
    // Lane 2 takes two turns of the loop in `early` and four of that in `odd`, lane 3 five of the latter.
    assert_eq!(work.turns, 6);
}
