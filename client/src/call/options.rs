//! What to call, where, and with what.

use std::fmt;
use std::sync::Arc;

use crate::wallet::Resuming;
use dlambda_proto::{Endpoint, FunctionId, HttpRequest, PlanName, Requirements};

/// One call, as its caller describes it.
#[derive(Clone)]
pub struct Call {
    pub(crate) target: Target,
    pub(crate) function: FunctionName,
    pub(crate) plan: Option<PlanName>,
    pub(crate) args: Vec<String>,
    pub(crate) input: Vec<u8>,
    pub(crate) http: Option<HttpRequest>,
    pub(crate) resuming: Resuming,
    pub(crate) hedge: bool,
}

/// Where a call may go.
#[derive(Clone)]
#[non_exhaustive]
pub enum Target {
    /// To one provider, at this endpoint.
    Provider(Endpoint),
    /// To any provider that meets these and that the wallet holds a token of. One is drawn at
    /// random, by how well it served before; if it fails, others follow, three in all. Without such
    /// a token the call ends with [`CallError::NoCandidate`](crate::CallError::NoCandidate).
    Any(Requirements),
}

/// A provider that may be asked.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Candidate {
    /// Where it answers.
    pub endpoint: Endpoint,
    /// What the call's alias stands for, if that is settled: an advert that gives it to another
    /// function changes nothing then.
    pub function: Option<FunctionId>,
}

impl Candidate {
    /// A provider at this endpoint.
    #[must_use]
    pub fn at(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            function: None,
        }
    }
}

/// How a caller names a function.
#[derive(Clone)]
#[non_exhaustive]
pub enum FunctionName {
    /// By a name in the provider's advert.
    Alias(String),
    /// By its content.
    Id(FunctionId),
    /// By its bytes, which travel to the provider if it lacks them.
    Wasm(Arc<[u8]>),
}

impl Call {
    /// A call without arguments or input, on the provider's default plan.
    #[must_use]
    pub fn new(target: impl Into<Target>, function: FunctionName) -> Self {
        Self {
            target: target.into(),
            function,
            plan: None,
            args: Vec::new(),
            input: Vec::new(),
            http: None,
            resuming: Resuming::Soon,
            hedge: false,
        }
    }

    /// Asks for this plan.
    #[must_use]
    pub fn plan(self, plan: PlanName) -> Self {
        Self {
            plan: Some(plan),
            ..self
        }
    }

    /// Arguments, after the program's name.
    #[must_use]
    pub fn args(self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            ..self
        }
    }

    /// Takes up the very same call, which was interrupted at any time before, with its token:
    /// otherwise this happens by itself within five minutes, and later never. If there is none, the
    /// call fails.
    ///
    /// The provider sees one token at two times, and so that the same caller was here at both; if
    /// it answered the first time, it refuses the token.
    #[must_use]
    pub fn resume(self) -> Self {
        Self {
            resuming: Resuming::AtAnyTime,
            ..self
        }
    }

    /// Opens two circuits to the provider, and sends the same request on the second if the first
    /// brings no answer within the time that 95 of 100 earlier ones took. It is one call, and paid
    /// once; the provider sees that it came on two circuits.
    #[must_use]
    pub fn hedge(self) -> Self {
        Self {
            hedge: true,
            ..self
        }
    }

    /// A digest of function, arguments, input and HTTP request, in hexadecimal: the same for the
    /// same call, wherever it goes. Someone who guesses them all can check the guess.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(super::payment::hash(self))
    }

    /// Its arguments.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.args
    }

    /// Its standard input.
    #[must_use]
    pub fn standard_input(&self) -> &[u8] {
        &self.input
    }

    /// Its HTTP request, if it has one.
    #[must_use]
    pub fn http_request(&self) -> Option<&HttpRequest> {
        self.http.as_ref()
    }

    /// Standard input.
    #[must_use]
    pub fn input(self, input: impl Into<Vec<u8>>) -> Self {
        Self {
            input: input.into(),
            ..self
        }
    }

    /// What a `wasi:http` function is asked; the input is the request's body.
    /// Without this, such a function gets `POST /`, or `GET /` if there is no
    /// input.
    #[must_use]
    pub fn http(self, request: HttpRequest) -> Self {
        Self {
            http: Some(request),
            ..self
        }
    }
}

impl From<Endpoint> for Target {
    fn from(endpoint: Endpoint) -> Self {
        Self::Provider(endpoint)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Target([scrubbed])")
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Candidate([scrubbed])")
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Call([scrubbed])")
    }
}

impl fmt::Debug for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FunctionName([scrubbed])")
    }
}
