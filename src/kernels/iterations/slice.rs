//! The part of a text that its loops depend on: naga takes long to read the rest, sums mostly.

use crate::kernels::language::declarations;
use std::collections::{HashMap, HashSet};

/// Returns a text without assignments to variables that nothing else names, with as many lines.
pub(super) fn slice(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let looped = looped(&lines);
    // Variables of functions are told apart by the function's number.
    let numbers = lines.iter().scan(0usize, |number, line| {
        *number += usize::from(line.starts_with("fn "));
        Some(*number)
    });
    let numbers: Vec<usize> = numbers.collect();
    let mut waiting: HashMap<(usize, &str), Vec<usize>> = HashMap::new();
    let mut kept = vec![true; lines.len()];
    for (i, line) in lines.iter().enumerate() {
        let is_looped = names(line).any(|word| looped.contains(word));
        if let Some(name) = assigned(line).filter(|_| !is_looped) {
            waiting.entry((numbers[i], name)).or_default().push(i);
            kept[i] = false;
        }
    }
    // Declarations, at the margin, read nothing.
    let mut read: Vec<usize> = (0..lines.len()).filter(|&i| kept[i] && lines[i].starts_with(' ')).collect();
    while let Some(line) = read.pop() {
        for name in names(lines[line]) {
            for i in waiting.remove(&(numbers[line], name)).into_iter().flatten() {
                kept[i] = true;
                read.push(i);
            }
        }
    }
    let text: Vec<&str> = lines.iter().zip(kept).map(|(line, kept)| if kept { line } else { "" }).collect();
    text.join("\n")
}

/// Returns the constants of a text and its entry point, as one that does nothing.
pub(super) fn entry(text: &str) -> String {
    let all = declarations(text).into_iter().map(|(name, declaration)| match declaration.split_once("fn main(") {
        Some((attributes, _)) if name == "main" => format!("{attributes}fn main() {{}}\n"),
        _ if declaration.starts_with("const") || declaration.starts_with("override") => declaration.to_owned(),
        _ => String::new(),
    });
    all.collect()
}

/// Returns the names of a line but those of members.
fn names(line: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = line.char_indices().filter(move |&(i, c)| is_part(c) && !line[..i].ends_with(is_part));
    let whole = starts.filter(|&(i, _)| !line[..i].ends_with('.'));
    whole.filter_map(move |(i, _)| line[i..].split(|c| !is_part(c)).next())
}

/// Returns the variable that a line assigns to and does no more than that.
fn assigned(line: &str) -> Option<&str> {
    let statement = line.trim_end().strip_suffix(';').filter(|s| s.starts_with(' '))?.trim_start();
    let (left, right) = statement.split_once('=')?;
    let plain = !statement.contains(['{', '}', ';']) && !statement.contains("(&") && !statement.contains(", &");
    let count = |c| statement.matches(c).count();
    let whole = count('(') == count(')') && count('[') == count(']') && !right.starts_with('=');
    let starts = statement.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let mut names = names(left).skip_while(|word| ["let", "var", "const"].contains(word));
    let ends = !left.ends_with(['!', '<', '>']);
    names.next().filter(|name| plain && whole && starts && ends && !["return", "break", "if", "for"].contains(name))
}

/// Returns the functions with loops, and those that call them.
fn looped<'a>(lines: &[&'a str]) -> HashSet<&'a str> {
    let mut looped = HashSet::from(["for", "while", "loop"]);
    // A function may call one that stands behind it.
    for _ in 0..=lines.iter().filter(|line| line.starts_with("fn ")).count() {
        let (before, mut function) = (looped.len(), None);
        for line in lines {
            if let Some(rest) = line.strip_prefix("fn ") {
                function = names(rest).next();
            }
            if names(line).any(|word| looped.contains(word)) {
                looped.extend(function);
            }
        }
        if looped.len() == before {
            break;
        }
    }
    looped
}
