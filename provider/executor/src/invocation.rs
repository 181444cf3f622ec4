//! What a function is called with.

use std::fmt;

use bytes::Bytes;
use dlambda_proto::{HttpField, HttpRequest};
use minicbor::{Decode, Encode};

/// What a function is called with.
#[derive(Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Invocation {
    /// Arguments after `argv[0]`, which is `function` for every function. A NUL ends an argument,
    /// as in C. HTTP functions do not get them.
    #[n(0)]
    pub args: Vec<String>,
    /// Standard input; the body of the request for an HTTP function.
    #[cbor(n(1), with = "crate::helper::ipc::octets")]
    pub input: Bytes,
    /// Where all its random numbers come from; fresh random bytes for a function that keeps
    /// secrets.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub seed: [u8; 32],
    /// What an HTTP function is asked; commands do not see it. An HTTP function that is asked
    /// nothing gets `POST /`, or `GET /` if there is no input.
    #[n(3)]
    pub http: Option<HttpRequest>,
}

impl Invocation {
    /// About as many as it takes to write it down.
    pub(crate) fn bytes(&self) -> u64 {
        const EACH: usize = 16;
        let args = self.args.iter().map(|arg| arg.len() + EACH);
        let fields = self.http.iter().flat_map(HttpRequest::fields);
        let fields =
            fields.map(|field: &HttpField| field.name().len() + field.value().len() + EACH);
        let lines = self
            .http
            .iter()
            .map(|http| http.method().len() + http.path().len());
        let all = args.chain(fields).chain(lines);
        all.fold(self.input.len() as u64, |sum, more| {
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
