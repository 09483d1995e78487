//! Where the node's binary is: as named, else beside this one, else `$QUIPUD`, else on the path.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::bail;

const NAME: &str = "quipud";

/// Finds `quipud`, or says where it was looked for. A file that is named has to be there.
pub(crate) fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return match named.is_file() {
            true => Ok(named.to_owned()),
            false => bail!("there is no file {}", named.display()),
        };
    }
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let named = env::var_os("QUIPUD").map(PathBuf::from);
    let path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>());
    choose(beside.as_deref(), named.as_deref(), &path.unwrap_or_default())
}

fn choose(
    beside: Option<&Path>,
    named: Option<&Path>,
    path: &[PathBuf],
) -> anyhow::Result<PathBuf> {
    if let Some(found) = beside.map(|folder| folder.join(NAME)).filter(|file| file.is_file()) {
        return Ok(found);
    }
    if let Some(named) = named {
        if named.is_file() {
            return Ok(named.to_owned());
        }
        bail!("QUIPUD is {}, and there is no such file", named.display());
    }
    if let Some(found) = path.iter().map(|folder| folder.join(NAME)).find(|file| file.is_file()) {
        return Ok(found);
    }
    let folder = beside.map_or_else(|| "this binary".to_owned(), |b| b.display().to_string());
    bail!(
        "there is no `{NAME}` in {folder} or on the path; build it with `cargo build -p node`, or \
         set QUIPUD to the file"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_binary_beside_this_one_comes_first_then_the_variable_then_the_path() {
        let beside = tempfile::tempdir().unwrap();
        let path = tempfile::tempdir().unwrap();
        let folders = [path.path().to_owned()];
        fs::write(path.path().join(NAME), "").unwrap();
        let found = choose(Some(beside.path()), None, &folders).unwrap();
        assert_eq!(found, path.path().join(NAME));

        let named = path.path().join("other");
        fs::write(&named, "").unwrap();
        assert_eq!(choose(Some(beside.path()), Some(&named), &folders).unwrap(), named);

        fs::write(beside.path().join(NAME), "").unwrap();
        let found = choose(Some(beside.path()), Some(&named), &folders).unwrap();
        assert_eq!(found, beside.path().join(NAME));
    }

    #[test]
    fn a_missing_binary_is_an_error_that_says_how_to_get_one() {
        let empty = tempfile::tempdir().unwrap();
        let error = choose(Some(empty.path()), None, &[]).unwrap_err().to_string();
        assert!(error.contains("cargo build -p node"), "{error}");
        let error = choose(None, Some(&empty.path().join("x")), &[]).unwrap_err().to_string();
        assert!(error.starts_with("QUIPUD is "), "{error}");
    }
}
