//! Several launches in one: its first workgroups are those of the first launch, the next ones those of the second, and so on.
//!
//! Each entry function becomes a function that one branch calls. What the texts declare alike they share, workgroup memory of one name too,
//! since a workgroup is of one launch alone; of the rest, what the second and later texts declare gets other names.

use super::language::{declarations, identifiers};
use crate::{graph::Grid, tensor::Count};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write,
};

/// The workgroup memory that all devices have.
const MEMORY: u64 = 16_384;
/// What an entry function may ask for.
const BUILT_IN: [&str; 3] = ["workgroup_id", "num_workgroups", "local_invocation_index"];

/// A launch to join with others.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its WGSL.
    pub source: &'a str,
    /// The values of its `override` constants.
    pub constants: &'a [(&'static str, f64)],
    /// Its workgroups.
    pub grid: Grid,
    /// Lanes of a workgroup.
    pub lanes: u32,
}

/// Launches as one.
#[derive(Debug, Clone)]
pub struct Whole {
    /// Its WGSL. It binds what the first launch binds, then what the second binds, and so on, and its extents last.
    pub source: String,
    /// Its workgroups.
    pub grid: Grid,
    /// How many workgroups each launch has.
    pub extents: Vec<(String, u32)>,
}

/// Returns launches whose workgroups have equally many lanes as one, with their constants in its text; `None` where they cannot be one.
pub fn join(parts: &[Part]) -> Option<Whole> {
    let lanes = parts.first()?.lanes;
    if parts.iter().any(|part| part.lanes != lanes || part.source.contains("enable ")) {
        return None;
    }
    let texts: Option<Vec<String>> = parts.iter().map(|part| with_constants(part.source, part.constants)).collect();
    let mut joined = Joined::default();
    let [mut members, mut ends, mut calls] = [const { String::new() }; 3];
    let mut extents = Vec::new();
    for (i, (part, text)) in parts.iter().zip(&texts?).enumerate() {
        let arguments = joined.add(i, text)?;
        let [first, before] = match i {
            0 => ["group".into(), String::new()],
            _ => [format!("group - end{}", i - 1), format!("end{} + ", i - 1)],
        };
        let place = |name: &String| match name.as_str() {
            "workgroup_id" => format!("vec3<u32>({first}, 0u, 0u)"),
            "num_workgroups" => "counts".into(),
            _ => "lane".into(),
        };
        let arguments: Vec<String> = arguments.iter().map(place).collect();
        let Grid { items, per_group } = part.grid;
        let fixed = items.fixed + u64::from(per_group - 1);
        for (name, value) in [("fixed", fixed), ("per_sample", items.per_sample), ("per_group", per_group.into())] {
            let _ = writeln!(members, "  {name}{i}: u32,");
            extents.push((format!("{name}{i}"), u32::try_from(value).ok()?));
        }
        let groups = format!("max((step.n * ends.per_sample{i} + ends.fixed{i}) / ends.per_group{i}, 1u)");
        let _ = writeln!(ends, "  let end{i} = {before}{groups};");
        let _ = writeln!(calls, "  if (group < end{i}) {{ launch{i}({}); return; }}", arguments.join(", "));
    }
    let memory: u64 = joined.memory.values().map(|(_, _, bytes)| bytes).sum();
    let binding = joined.bindings + 1;
    let mut source: String = joined.texts.concat();
    let _ = write!(
        source,
        "struct Ends {{\n{members}}}\n@group(0) @binding({binding}) var<uniform> ends: Ends;\n\
         @compute @workgroup_size({lanes})\nfn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, \
         @builtin(local_invocation_index) lane: u32) {{\n  let group = id.x + id.y * counts.x;\n{ends}{calls}}}\n"
    );
    (memory <= MEMORY).then_some(Whole { source, grid: grid(parts)?, extents })
}

/// Returns a grid of at least as many workgroups as all launches have together.
fn grid(parts: &[Part]) -> Option<Grid> {
    let multiple = |a: u64, b: u64| a / gcd(a, b) * b;
    let per_group = parts.iter().map(|part| u64::from(part.grid.per_group)).fold(1, multiple);
    let per_group = u32::try_from(per_group).ok()?;
    let items = parts.iter().fold(Count::default(), |all, Part { grid, .. }| {
        let times = u64::from(per_group / grid.per_group);
        let fixed = all.fixed + (grid.items.fixed.max(1) + u64::from(grid.per_group - 1)) * times;
        Count { fixed, per_sample: all.per_sample + grid.items.per_sample * times }
    });
    Some(Grid { items, per_group })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Returns a text whose `override` constants are numbers.
fn with_constants(text: &str, constants: &[(&'static str, f64)]) -> Option<String> {
    let line = |line: &str| -> Option<String> {
        let Some(rest) = line.strip_prefix("override ") else { return Some(line.to_owned()) };
        let (name, rest) = rest.split_once(':')?;
        let (ty, default) = rest
            .trim_end()
            .strip_suffix(';')?
            .split_once('=')
            .map_or((rest.trim_end().strip_suffix(';')?, None), |(ty, value)| (ty, Some(value)));
        let value = match (constants.iter().find(|c| c.0 == name), ty.trim()) {
            (Some((_, value)), "f32") => format!("{:?}", *value as f32),
            (Some((_, value)), "bool") => format!("{}", *value != 0.0),
            (Some((_, value)), "i32") => format!("i32({value})"),
            (Some((_, value)), _) => format!("{value}u"),
            (None, _) => default?.trim().to_owned(),
        };
        Some(format!("const {name}: {} = {value};\n", ty.trim()))
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The declarations of several texts.
#[derive(Default)]
struct Joined {
    texts: Vec<String>,
    /// Where the text of each declaration is, by its name in its own text if it kept that.
    places: HashMap<String, usize>,
    /// Type of the elements, their number and bytes of each array in workgroup memory.
    memory: BTreeMap<String, (String, u64, u64)>,
    bindings: u32,
}

impl Joined {
    /// Adds the declarations of text `i`, and returns what its entry function is called with.
    fn add(&mut self, i: usize, text: &str) -> Option<Vec<String>> {
        let all = declarations(text);
        let by_name: HashMap<&str, &str> = all.iter().copied().collect();
        let placed = self.place(&all);
        let own = |(name, text): &(&str, &str)| {
            let renamed = match placed.get(name) {
                Some(to) => to != name,
                None => {
                    self.places.get(*name).is_some_and(|&at| self.texts[at] != *text)
                        || binding(text).is_some_and(|n| n > 0)
                }
            };
            renamed.then(|| (*name).to_owned())
        };
        let mut renamed: HashSet<String> = if i > 0 { all.iter().filter_map(own).collect() } else { HashSet::new() };
        loop {
            let affected = |(name, text): &&(&str, &str)| {
                i > 0
                    && !renamed.contains(*name)
                    && self.places.contains_key(*name)
                    && identifiers(text).any(|word| renamed.contains(word))
            };
            let more: Vec<String> = all.iter().filter(affected).map(|d| d.0.to_owned()).collect();
            if more.is_empty() {
                break;
            }
            renamed.extend(more);
        }
        let name = |name: &String| placed.get(name.as_str()).cloned().unwrap_or_else(|| format!("{name}_of{i}"));
        let names: HashMap<&str, String> = renamed.iter().map(|own| (own.as_str(), name(own))).collect();
        let (mut last, mut arguments) = (0, None);
        for (name, text) in all {
            let mut text = rename(text, &names);
            if name == "main" {
                arguments = Some(entry(&mut text, i)?);
            } else if let Some(n) = binding(&text).filter(|&n| n > 0) {
                last = last.max(n);
                text = text.replacen(&format!("@binding({n})"), &format!("@binding({})", self.bindings + n), 1);
            }
            if let Some((ty, n)) = array(&text) {
                let bytes = n * size(ty, &by_name)?;
                let to = names.get(name).cloned().unwrap_or(name.to_owned());
                let memory = self.memory.entry(to.clone()).or_insert((ty.to_owned(), n, bytes));
                if memory.1 < n {
                    *memory = (ty.to_owned(), n, bytes);
                    if let Some(&at) = self.places.get(&to) {
                        self.texts[at] = text.clone();
                    }
                }
                if i > 0 && placed.contains_key(name) {
                    continue;
                }
                if names.contains_key(name) {
                    self.places.insert(to, self.texts.len());
                }
            }
            let kept = !names.contains_key(name) && name != "main";
            if kept && self.places.contains_key(name) {
                continue;
            }
            if kept {
                self.places.insert(name.to_owned(), self.texts.len());
            }
            self.texts.push(text);
        }
        self.bindings += last;
        arguments
    }

    /// Returns for arrays of a text in workgroup memory those of other texts where they can lie: the largest in the largest.
    fn place<'t>(&self, all: &[(&'t str, &str)]) -> HashMap<&'t str, String> {
        let mut own: Vec<(&str, &str, u64)> =
            all.iter().filter_map(|(name, text)| array(text).map(|(ty, n)| (*name, ty, n))).collect();
        own.sort_by_key(|(.., n)| std::cmp::Reverse(*n));
        let mut places: Vec<(&String, &(String, u64, u64))> = self.memory.iter().collect();
        places.sort_by_key(|(_, (_, n, _))| std::cmp::Reverse(*n));
        let mut placed = HashMap::new();
        for (name, ty, _) in own.into_iter().filter(|(_, ty, _)| ty.contains("32")) {
            if let Some(at) = places.iter().position(|(_, (other, ..))| other == ty) {
                placed.insert(name, places.remove(at).0.clone());
            }
        }
        placed
    }
}

/// Returns the number of the binding that a declaration has.
fn binding(declaration: &str) -> Option<u32> {
    declaration.split_once("@binding(")?.1.split_once(')')?.0.parse().ok()
}

/// Returns the type of the elements and their number of an array in workgroup memory.
fn array(declaration: &str) -> Option<(&str, u64)> {
    let (_, ty) = declaration.strip_prefix("var<workgroup>")?.split_once("array<")?;
    let (ty, n) = ty.trim_end().strip_suffix(">;")?.rsplit_once(',')?;
    Some((ty.trim(), n.trim().trim_end_matches('u').parse().ok()?))
}

/// Returns the bytes of a type in workgroup memory, at most.
fn size(ty: &str, declared: &HashMap<&str, &str>) -> Option<u64> {
    match ty {
        "f32" | "u32" | "i32" => Some(4),
        "vec2<f32>" | "vec2<u32>" => Some(8),
        "vec4<f32>" | "vec4<u32>" => Some(16),
        name => {
            let text = declared.get(name)?;
            if let Some((_, ty)) = text.strip_prefix("alias").and_then(|text| text.split_once('=')) {
                return size(ty.trim().trim_end_matches(';'), declared);
            }
            let members =
                text.strip_prefix("struct")?.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(": "));
            let bytes: Option<u64> = members.map(|(_, ty)| size(ty, declared)).sum();
            Some(bytes?.next_multiple_of(16))
        }
    }
}

/// Returns a text with other names, but for members of structs.
fn rename(text: &str, names: &HashMap<&str, String>) -> String {
    let mut renamed = String::with_capacity(text.len() + 64);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let in_struct = text.starts_with("struct");
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let member = renamed.ends_with('.') || (in_struct && after.starts_with(':'));
        renamed.push_str(names.get(word).filter(|_| !member).map_or(word, String::as_str));
        let next = after.find(is_word).unwrap_or(after.len());
        renamed.push_str(&after[..next]);
        rest = &after[next..];
    }
    renamed
}

/// Makes a function of the entry function of text `i`, and returns what it is called with.
fn entry(text: &mut String, i: usize) -> Option<Vec<String>> {
    let (_, rest) = text.split_once("fn main(")?;
    let (parameters, body) = rest.split_once(") {")?;
    let (mut names, mut plain) = (Vec::new(), Vec::new());
    for parameter in parameters.split(',').map(str::trim).filter(|parameter| !parameter.is_empty()) {
        let (built_in, name) = parameter.strip_prefix("@builtin(")?.split_once(')')?;
        names.push(BUILT_IN.contains(&built_in).then(|| built_in.to_owned())?);
        plain.push(name.trim());
    }
    *text = format!("fn launch{i}({}) {{{body}", plain.join(", "));
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "@compute @workgroup_size(LANES)\nfn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {\n";

    fn kernel(before: &str, body: &str) -> String {
        let shared =
            "struct Step {\n  n: u32,\n}\n@group(0) @binding(0) var<uniform> step: Step;\noverride LANES: u32 = 64u;\n";
        format!("{shared}{before}{HEAD}{body}}}\n")
    }

    fn part<'a>(source: &'a str, constants: &'a [(&'static str, f64)], items: Count) -> Part<'a> {
        Part { source, constants, grid: Grid::new(items, 64), lanes: 64 }
    }

    #[test]
    fn what_texts_declare_alike_is_shared_and_the_rest_gets_other_names() {
        let buffers =
            "@group(0) @binding(1) var<storage, read_write> y: array<f32>;\nvar<workgroup> held: array<f32, 64>;\n";
        let half = "fn half(x: f32) -> f32 {\n  return x * FACTOR;\n}\nfn one() -> f32 {\n  return 1.0;\n}\noverride FACTOR: f32;\n";
        let body = "  held[lane] = half(one());\n  y[id.x * 64u + lane] = held[lane];\n";
        let more = format!("{}{half}", buffers.replace("64>", "128>"));
        let (a, b) = (kernel(&format!("{buffers}{half}"), body), kernel(&more, body).replace(", @", ",\n    @"));
        let constants = [[("FACTOR", 0.5)], [("FACTOR", 0.25)]];
        let count = |fixed, per_sample| Count { fixed, per_sample };
        let parts = [part(&a, &constants[0], count(0, 100)), part(&b, &constants[1], count(130, 0))];
        let Whole { source: text, grid, extents } = join(&parts).expect("they can be one");
        assert_eq!(extents.len(), 6);
        let module =
            naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}\n{text}", e.emit_to_string(&text)));
        let names: Vec<&str> = module.global_variables.iter().filter_map(|(_, v)| v.name.as_deref()).collect();
        assert_eq!(names, ["step", "y", "held", "y_of1", "ends"], "{text}");
        assert!(text.contains("array<f32, 128>") && !text.contains("array<f32, 64>"), "{text}");
        assert_eq!(["fn half", "fn one", "const FACTOR"].map(|what| text.matches(what).count()), [2, 1, 2], "{text}");
        // ceil(100 n / 64) and 3 workgroups.
        for n in 1..100 {
            let [groups, _] = grid.at(n, u32::MAX);
            assert!(
                groups >= (100 * n as u32).div_ceil(64) + 3 && groups <= (100 * n as u32).div_ceil(64) + 5,
                "{n}: {groups}"
            );
        }
    }

    #[test]
    fn launches_of_other_lanes_builtins_or_too_much_memory_cannot_be_one() {
        let held = |n: usize| format!("var<workgroup> held{n}: array<vec4<f32>, {n}>;\n");
        let one = |n: usize| kernel(&held(n), &format!("  held{n}[lane] = vec4<f32>(0.0);\n"));
        let count = Count { fixed: 1, per_sample: 0 };
        let (a, b, c) = (one(512), one(500), one(1025));
        let whole =
            join(&[part(&a, &[], count), part(&b, &[], count)]).expect("the smaller array lies in the larger one");
        assert_eq!(whole.source.matches("var<workgroup>").count(), 1, "{}", whole.source);
        assert!(join(&[part(&a, &[], count), part(&c, &[], count)]).is_none(), "16,400 bytes");
        assert!(join(&[part(&a, &[], count), Part { lanes: 32, ..part(&b, &[], count) }]).is_none());
        let other = b.replace("local_invocation_index", "subgroup_invocation_id");
        assert!(join(&[part(&a, &[], count), part(&other, &[], count)]).is_none());
    }
}
