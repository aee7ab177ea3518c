//! Limits that the source files keep: lines of a function and of a file, parameters, and no circle of imports.

use crate::repository::files;
use std::collections::{BTreeMap, BTreeSet};
use syn::{Item, UseTree, spanned::Spanned, visit::Visit};

const MAX_FILE_LINES: usize = 600;
const MAX_FN_LINES: usize = 80;
const MAX_PARAMETERS: usize = 6;

struct Source {
    name: String,
    lines: usize,
    file: syn::File,
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let read = |(name, text): (String, String)| {
        let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        Source { name, lines: text.lines().count(), file }
    };
    folders.iter().flat_map(|folder| files(folder, "rs")).map(read).collect()
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(
        |a| matches!(&a.meta, syn::Meta::List(list) if list.path.is_ident("cfg") && list.tokens.to_string() == "test"),
    )
}

/// Lines and parameters of each function.
#[derive(Default)]
struct Functions(Vec<(String, usize, usize)>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        // A table in one expression is data.
        let is_table = matches!(&block.stmts[..], [syn::Stmt::Macro(_) | syn::Stmt::Expr(syn::Expr::Macro(_), None)]);
        let lines = block.span().end().line - signature.span().start().line + 1;
        let lines = if is_table { 0 } else { lines };
        let parameters = signature.inputs.iter().filter(|i| matches!(i, syn::FnArg::Typed(_))).count();
        self.0.push((signature.ident.to_string(), lines, parameters));
    }
}

impl<'a> Visit<'a> for Functions {
    fn visit_item_fn(&mut self, f: &'a syn::ItemFn) {
        self.add(&f.sig, &f.block);
        syn::visit::visit_item_fn(self, f);
    }
    fn visit_impl_item_fn(&mut self, f: &'a syn::ImplItemFn) {
        self.add(&f.sig, &f.block);
        syn::visit::visit_impl_item_fn(self, f);
    }
}

#[test]
fn files_and_functions_are_short_and_take_few_parameters() {
    let mut long = Vec::new();
    for source in sources(&["src", "tests", "examples", "benches"]) {
        if source.lines > MAX_FILE_LINES {
            long.push(format!("{} has {} lines", source.name, source.lines));
        }
        if source.name.starts_with("src/kernels/") {
            continue;
        }
        let mut functions = Functions::default();
        functions.visit_file(&source.file);
        for (function, lines, parameters) in functions.0 {
            if lines > MAX_FN_LINES {
                long.push(format!("{}: `{function}` has {lines} lines", source.name));
            }
            if parameters > MAX_PARAMETERS {
                long.push(format!("{}: `{function}` takes {parameters} parameters", source.name));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

type ModulePath = Vec<String>;

/// A module of the library: what it defines, passes on by name and by `*`, and the paths that its code takes.
#[derive(Default)]
struct Module {
    items: BTreeSet<String>,
    reexports: BTreeMap<String, ModulePath>,
    globs: Vec<ModulePath>,
    paths: Vec<ModulePath>,
}

impl Module {
    fn take_use(&mut self, tree: &UseTree, prefix: &mut ModulePath, public: bool) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.take_use(&path.tree, prefix, public);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.take_use(tree, prefix, public)),
            UseTree::Glob(_) if public => self.globs.push(prefix.clone()),
            UseTree::Glob(_) => self.paths.push(prefix.clone()),
            UseTree::Name(_) | UseTree::Rename(_) => {
                let (name, known_as) = match tree {
                    UseTree::Name(name) => (&name.ident, &name.ident),
                    UseTree::Rename(name) => (&name.ident, &name.rename),
                    _ => return,
                };
                let mut path = prefix.clone();
                if name != "self" {
                    path.push(name.to_string());
                }
                // What a module imports, the modules inside it see too.
                self.reexports.insert(known_as.to_string(), path.clone());
                if !public {
                    self.paths.push(path);
                }
            }
        }
    }
}

impl<'a> Visit<'a> for Module {
    fn visit_item(&mut self, item: &'a Item) {
        let name = match item {
            Item::Use(u) => {
                let public = !matches!(u.vis, syn::Visibility::Inherited);
                return self.take_use(&u.tree, &mut Vec::new(), public);
            }
            Item::Mod(m) if is_test(&m.attrs) => return,
            Item::Fn(f) => Some(&f.sig.ident),
            Item::Struct(s) => Some(&s.ident),
            Item::Enum(e) => Some(&e.ident),
            Item::Trait(t) => Some(&t.ident),
            Item::Const(c) => Some(&c.ident),
            Item::Static(s) => Some(&s.ident),
            Item::Type(t) => Some(&t.ident),
            _ => None,
        };
        self.items.extend(name.map(|n| n.to_string()));
        syn::visit::visit_item(self, item);
    }
    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: ModulePath = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if segments.len() > 1 {
            self.paths.push(segments);
        }
        syn::visit::visit_path(self, path);
    }
}

type Modules = BTreeMap<ModulePath, Module>;

/// Returns the file in which what a path in module `from` names is defined, where that is in the library.
fn resolve(modules: &Modules, from: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
    let (first, rest) = path.split_first()?;
    let (mut at, mut rest) = match first.as_str() {
        "crate" => (Vec::new(), rest),
        "self" => (from.clone(), rest),
        "super" => (from[..from.len().checked_sub(1)?].to_vec(), rest),
        child if modules.contains_key(&[from.clone(), vec![child.into()]].concat()) => (from.clone(), path),
        _ => return None,
    };
    while let Some((name, after)) = rest.split_first() {
        if name == "super" {
            at.pop()?;
            rest = after;
            continue;
        }
        let child = [at.clone(), vec![name.clone()]].concat();
        if modules.contains_key(&child) {
            (at, rest) = (child, after);
            continue;
        }
        let module = modules.get(&at)?;
        if module.items.contains(name) || depth > 8 {
            break;
        }
        if let Some(path) = module.reexports.get(name) {
            return resolve(modules, &at, path, depth + 1);
        }
        let through = module.globs.iter().find_map(|glob| {
            let target = resolve(modules, &at, glob, depth + 1)?;
            let own = modules.get(&target)?;
            let found = own.items.contains(name) || own.reexports.contains_key(name);
            found.then(|| resolve(modules, &target, &["self".into(), name.clone()], depth + 1)).flatten()
        });
        return through.or(Some(at));
    }
    Some(at)
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut modules = Modules::new();
    for source in sources(&["src"]).iter().filter(|s| !s.name.starts_with("src/bin/")) {
        let name = source.name.trim_start_matches("src/").trim_end_matches(".rs");
        let name = name.trim_end_matches("lib").trim_end_matches("/mod");
        let path: ModulePath = name.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if path.last().is_some_and(|last| last == "tests") {
            continue;
        }
        let mut module = Module::default();
        module.visit_file(&source.file);
        modules.insert(path, module);
    }
    let mut edges: BTreeMap<&ModulePath, BTreeSet<ModulePath>> = BTreeMap::new();
    for (path, module) in &modules {
        let targets = module.paths.iter().filter_map(|p| resolve(&modules, path, p, 0));
        // The crate's root holds its error type, which every module may name; the list of known networks names their files,
        // which take their defaults from it.
        let listed =
            |t: &ModulePath| path.starts_with(&["nn".into(), "models".into()]) && t.len() == 2 && t[1] == "models";
        edges.insert(path, targets.filter(|t| t != path && !t.is_empty() && !listed(t)).collect());
    }
    let leads_to = |from: &ModulePath, to: &ModulePath| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            open.extend(edges.get(at).into_iter().flatten().filter(|&next| seen.insert(next)));
        }
        seen.contains(to)
    };
    let circles: Vec<String> = (edges.iter())
        .flat_map(|(from, targets)| targets.iter().filter(|to| leads_to(to, from)).map(|to| (*from, to)))
        .map(|(from, to)| format!("{} -> {}", from.join("/"), to.join("/")))
        .collect();
    assert!(circles.is_empty(), "{circles:#?}");
}
