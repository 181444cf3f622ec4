//! What to call, where, and with what.

use std::fmt;
use std::sync::Arc;

use dlambda_proto::{Endpoint, FunctionId, HttpRequest, PlanName};

/// One call, as its caller describes it.
#[derive(Clone)]
pub struct Call {
    pub(crate) provider: Endpoint,
    pub(crate) function: FunctionName,
    pub(crate) plan: Option<PlanName>,
    pub(crate) args: Vec<String>,
    pub(crate) input: Vec<u8>,
    pub(crate) http: Option<HttpRequest>,
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
    pub fn new(provider: Endpoint, function: FunctionName) -> Self {
        Self {
            provider,
            function,
            plan: None,
            args: Vec::new(),
            input: Vec::new(),
            http: None,
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
