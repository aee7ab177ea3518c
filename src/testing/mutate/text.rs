//! Parts of WGSL expressions as text.

/// Words that name no variable.
const KEYWORDS: [&str; 10] = ["let", "var", "if", "else", "for", "while", "return", "switch", "loop", "const"];

/// Returns the parts of a list of arguments between parentheses: `a, b` of `f(a, b)`, with where each starts.
pub(super) fn arguments(call: &str) -> Vec<(usize, &str)> {
    let (Some(open), Some(close)) = (call.find('('), call.rfind(')')) else { return Vec::new() };
    let (mut depth, mut start, mut parts) = (0, open + 1, Vec::new());
    for (at, c) in call[..close].char_indices().skip(open + 1) {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 && !is_template(&call[start..at]) => {
                parts.push((start, &call[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push((start, &call[start..close]));
    parts
}

/// Returns whether a text ends within the brackets of a type such as `array<f32, 4>`.
fn is_template(text: &str) -> bool {
    text.rfind("array<").is_some_and(|at| !text[at..].contains('>'))
}

/// Returns the operands of the last operator `op` outside parentheses.
pub(super) fn operands<'a>(text: &'a str, op: &str) -> Option<[&'a str; 2]> {
    let bytes = text.as_bytes();
    let (mut depth, mut last) = (0, None);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ if depth == 0 && text[at..].starts_with(op) => {
                let before = text[..at].trim_end();
                let after = bytes.get(at + op.len()).copied().unwrap_or(b' ');
                // No sign of a number, exponent, bracket of a type, or part of a longer operator.
                let operand = before.ends_with(|c: char| c.is_ascii_alphanumeric() || "_)]".contains(c));
                let exponent = text[..at].ends_with('e') && text[..at - 1].ends_with(|c: char| c.is_ascii_digit());
                let bracket = ["<", ">"].contains(&op) && !(text[..at].ends_with(' ') && after == b' ');
                if operand && !exponent && !bracket && !b"=<>&|".contains(&after) {
                    last = Some(at);
                }
            }
            _ => {}
        }
    }
    last.map(|at| [text[..at].trim(), text[at + op.len()..].trim()])
}

/// Returns an access `a[i]` cut before the index and behind it.
pub(super) fn access(text: &str) -> Option<[&str; 2]> {
    let inner = text.strip_suffix(']')?;
    let mut open = 1;
    let (at, _) = inner.char_indices().rev().find(|(_, c)| {
        open += i32::from(*c == ']') - i32::from(*c == '[');
        open == 0
    })?;
    Some([&inner[..at], &inner[at + 1..]])
}

/// Returns the first name of the statement that has a place in it.
pub(super) fn name(source: &str, at: usize) -> &str {
    let start = source[..at].rfind([';', '{', '}']).map_or(0, |i| i + 1);
    let end = source[at..].find([';', '{', '}']).map_or(source.len(), |i| at + i);
    let code = source[start..end].lines().filter_map(|line| line.split("//").next());
    let words = code.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let is_name = |w: &&str| w.starts_with(|c: char| c.is_ascii_alphabetic()) && !KEYWORDS.contains(w);
    words.into_iter().find(is_name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_cut_at_their_last_operator_outside_parentheses() {
        assert_eq!(operands("a - b - c", "-"), Some(["a - b", "c"]));
        assert_eq!(operands("(a - b) * (c - d)", "*"), Some(["(a - b)", "(c - d)"]));
        assert_eq!(operands("a - -1e-5", "-"), Some(["a", "-1e-5"]));
        assert_eq!(operands("a <= b", "<"), None);
        assert_eq!(operands("f(a - b)", "-"), None);
        assert_eq!(operands("i < vec4<u32>(n)", "<"), Some(["i", "vec4<u32>(n)"]));
        assert_eq!(access("x[i + y[1]]"), Some(["x", "i + y[1]"]));
        assert_eq!(arguments("select(a, f(b, c), d < e)").last(), Some(&(18, " d < e")));
        assert_eq!(name("{ let a = 1;\n // b;\n if (row < C) { return; }", 25), "row");
    }
}
