//! What serde_json has to say of one line, without the line number it counts itself: the line's
//! own number is told by whoever read it.

/// The error's text, with the column but without the line.
pub(crate) fn text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_stays_and_the_line_goes() {
        let error = serde_json::from_str::<u64>("x").unwrap_err();
        assert_eq!(text(&error), "expected value at column 1");
    }
}
