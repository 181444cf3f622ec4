//! A request to a `wasi:http` function, as it is given on the command line.

use std::str::FromStr;

use dlambda_proto::{HttpError, HttpRequest};

/// A request's method, if it was given, and its path with the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method: Option<String>,
    pub(crate) path: String,
}

impl FromStr for RequestLine {
    type Err = HttpError;

    fn from_str(text: &str) -> Result<Self, HttpError> {
        let (method, path) = match text.trim().split_once(' ') {
            Some((method, path)) => (Some(method), path.trim_start()),
            None => (None, text.trim()),
        };
        HttpRequest::new(method.unwrap_or("GET"), path)?;
        Ok(Self {
            method: method.map(str::to_owned),
            path: path.to_owned(),
        })
    }
}

/// Checks a header field as it is given on the command line.
pub(crate) fn header(line: &str) -> Result<String, HttpError> {
    HttpRequest::new("GET", "/")?.with_field(line)?;
    Ok(line.to_owned())
}
