//! The pages of the error codes, so that whoever has the program has them.

use crate::failure::{Failure, exit};

/// Each code, with what it means and what to do.
const PAGES: &[(&str, &str)] = &[
    ("Y1001", include_str!("../../docs/errors/Y1001.md")),
    ("Y1002", include_str!("../../docs/errors/Y1002.md")),
    ("Y1003", include_str!("../../docs/errors/Y1003.md")),
    ("Y1004", include_str!("../../docs/errors/Y1004.md")),
    ("Y1005", include_str!("../../docs/errors/Y1005.md")),
    ("Y1006", include_str!("../../docs/errors/Y1006.md")),
    ("Y1007", include_str!("../../docs/errors/Y1007.md")),
    ("Y1008", include_str!("../../docs/errors/Y1008.md")),
    ("Y1009", include_str!("../../docs/errors/Y1009.md")),
    ("Y1010", include_str!("../../docs/errors/Y1010.md")),
    ("Y1011", include_str!("../../docs/errors/Y1011.md")),
    ("Y1012", include_str!("../../docs/errors/Y1012.md")),
    ("Y1013", include_str!("../../docs/errors/Y1013.md")),
    ("Y1014", include_str!("../../docs/errors/Y1014.md")),
    ("Y1015", include_str!("../../docs/errors/Y1015.md")),
    ("Y1016", include_str!("../../docs/errors/Y1016.md")),
    ("Y2001", include_str!("../../docs/errors/Y2001.md")),
    ("Y2002", include_str!("../../docs/errors/Y2002.md")),
    ("Y2003", include_str!("../../docs/errors/Y2003.md")),
    ("Y2004", include_str!("../../docs/errors/Y2004.md")),
    ("Y2005", include_str!("../../docs/errors/Y2005.md")),
    ("Y2006", include_str!("../../docs/errors/Y2006.md")),
    ("Y2007", include_str!("../../docs/errors/Y2007.md")),
    ("Y2008", include_str!("../../docs/errors/Y2008.md")),
    ("Y2009", include_str!("../../docs/errors/Y2009.md")),
    ("Y2010", include_str!("../../docs/errors/Y2010.md")),
    ("Y2011", include_str!("../../docs/errors/Y2011.md")),
    ("Y2012", include_str!("../../docs/errors/Y2012.md")),
    ("Y2013", include_str!("../../docs/errors/Y2013.md")),
    ("Y2014", include_str!("../../docs/errors/Y2014.md")),
    ("Y2015", include_str!("../../docs/errors/Y2015.md")),
    ("Y3001", include_str!("../../docs/errors/Y3001.md")),
    ("Y3002", include_str!("../../docs/errors/Y3002.md")),
    ("Y3003", include_str!("../../docs/errors/Y3003.md")),
    ("Y3004", include_str!("../../docs/errors/Y3004.md")),
    ("Y3005", include_str!("../../docs/errors/Y3005.md")),
    ("Y3006", include_str!("../../docs/errors/Y3006.md")),
    ("Y3007", include_str!("../../docs/errors/Y3007.md")),
    ("Y3008", include_str!("../../docs/errors/Y3008.md")),
];

/// The page of a code.
pub(crate) fn page(code: &str) -> Result<&'static str, Failure> {
    let wanted = code.trim().to_ascii_uppercase();
    match PAGES.iter().find(|(code, _)| *code == wanted) {
        Some((_, page)) => Ok(page),
        None => {
            let hint = "codes stand behind `error`, such as error[Y2001]";
            Err(Failure::new(exit::NOT_FOUND, format!("there is no error {code:?}"), hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::ErrorCode;

    #[test]
    fn each_code_has_its_page() {
        assert_eq!(PAGES.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let text = page(&code.to_string().to_lowercase()).unwrap();
            assert!(text.starts_with(&format!("# {code}: ")), "{code}");
        }
        assert_eq!(page("Y0001").unwrap_err().exit, 66);
    }
}
