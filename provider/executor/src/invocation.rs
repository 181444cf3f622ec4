//! What a function is called with.

use std::fmt;

use bytes::Bytes;

/// What a function is called with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Arguments after `argv[0]`, which is `function` for every function. A NUL ends an argument, as in C.
    /// HTTP functions do not get them.
    pub args: Vec<String>,
    /// Standard input; the body of the request for an HTTP function.
    pub input: Bytes,
    /// Where all its random numbers come from; fresh random bytes for a function that keeps secrets.
    pub seed: [u8; 32],
    /// What an HTTP function is asked; commands do not see it. An HTTP function that is asked nothing gets `POST /`,
    /// or `GET /` if there is no input.
    pub http: Option<HttpRequest>,
}

/// The head of a request to an HTTP function.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method, such as `GET`.
    pub method: String,
    /// The path, beginning with `/`, and the query.
    pub path: String,
    /// Names and values of the header fields, in order.
    pub fields: Vec<(String, Vec<u8>)>,
}

/// The head of an HTTP function's response; its body is [`Outcome::stdout`](crate::Outcome::stdout).
#[derive(Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// Names (in lower case) and values of the header fields, in order.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Invocation {
    /// About as many as it takes to write it down.
    pub(crate) fn bytes(&self) -> u64 {
        const EACH: usize = 16;
        let args = self.args.iter().map(|arg| arg.len() + EACH);
        let http = self.http.iter().flat_map(|http| {
            let fields = http.fields.iter();
            let fields = fields.map(|(name, value)| name.len() + value.len() + EACH);
            fields.chain([http.method.len(), http.path.len()])
        });
        args.chain(http).fold(self.input.len() as u64, |sum, more| {
            sum.saturating_add(more as u64)
        })
    }
}

/// Shows sizes only.
impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("args", &self.args.len())
            .field("input_bytes", &self.input.len())
            .field("http", &self.http.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpRequest([scrubbed])")
    }
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpResponse([scrubbed])")
    }
}
