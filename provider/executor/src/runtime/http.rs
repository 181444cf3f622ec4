//! One request to a `wasi:http` handler, and its response.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use dlambda_proto::{HttpError, HttpField, HttpRequest, HttpResponse};
use http::response::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::task::coop::unconstrained;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::p2::OutputStream as _;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::ExecutorError;
use crate::engine::bounds::FIELD_BYTES;
use crate::runtime::host::Host;

/// What a handler takes for its own name, unless the caller gives it another: names are for
/// networks.
const AUTHORITY: &str = "function";

/// The HTTP side of one call.
pub(crate) struct Http {
    ctx: WasiHttpCtx,
    hooks: NoEgress,
    answer: Arc<Mutex<ResponseState>>,
}

#[derive(Default)]
enum ResponseState {
    #[default]
    None,
    Failed,
    Head(Response<HyperOutgoingBody>),
    Body(Sendable, HyperOutgoingBody),
    Complete(Sendable),
}

/// The head of a response, if a reply can carry it.
pub(crate) type Sendable = Result<HttpResponse, HttpError>;

/// Requests of guests go nowhere.
struct NoEgress;

impl WasiHttpHooks for NoEgress {
    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<
        dyn Future<
                Output = Result<
                    (
                        Response<WasiBody>,
                        Box<dyn Future<Output = Result<(), Error>> + Send>,
                    ),
                    Error,
                >,
            > + Send,
    > {
        Box::new(std::future::ready(Err(Error::DestinationIpProhibited)))
    }
}

impl Default for Http {
    fn default() -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(FIELD_BYTES);
        Self {
            ctx,
            hooks: NoEgress,
            answer: Arc::default(),
        }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http.ctx,
            hooks: &mut self.http.hooks,
            table: self.wasi.ctx().table,
        }
    }
}

/// A checked request.
pub(crate) type Incoming = Request<Full<Bytes>>;
/// What a handler is called with.
pub(crate) type Exchange = (
    Resource<HostIncomingRequest>,
    Resource<HostResponseOutparam>,
);

/// Checks a request. `body` is its input.
pub(crate) fn request(head: Option<HttpRequest>, body: Bytes) -> Result<Incoming, ExecutorError> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let head = head.or_else(|| HttpRequest::new(method, "/").ok());
    head.and_then(|head| build(&head, body))
        .ok_or(ExecutorError::BadInvocation("not a valid HTTP request"))
}

/// Nothing if its `host` field is no authority.
fn build(head: &HttpRequest, body: Bytes) -> Option<Incoming> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::from_bytes(head.method().as_bytes()).ok()?;
    let mut host = AUTHORITY.to_owned();
    for field in head.fields() {
        let name = HeaderName::from_bytes(field.name().as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(field.value()).ok()?;
        if name == http::header::HOST {
            value.to_str().ok()?.clone_into(&mut host);
        }
        request.headers_mut().try_append(name, value).ok()?;
    }
    *request.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(host)
        .path_and_query(head.path())
        .build()
        .ok()?;
    Some(request)
}

impl Host {
    /// Hands the request to the guest, and pays for it at once.
    pub(crate) fn begin_exchange(&mut self, request: Incoming) -> wasmtime::Result<Exchange> {
        let fields = request
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len());
        let head: usize = fields.sum::<usize>() + request.uri().path().len();
        let body = hyper::body::Body::size_hint(request.body()).lower();
        self.host_fuel.charge_call(
            usize::try_from(body)
                .unwrap_or(usize::MAX)
                .saturating_add(head),
        );
        let request = self.http().new_incoming_request(Scheme::Http, request)?;
        let answer = Arc::clone(&self.http.answer);
        let respond = move |response: Result<_, _>| {
            let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
            *answer = response.map_or(ResponseState::Failed, ResponseState::Head);
        };
        let outparam = self.http().new_response_outparam_from_callback(respond)?;
        Ok((request, outparam))
    }

    /// Takes what the guest has written of its response. Called after each host call, so that what
    /// the guest sees of the stream's fill level never depends on time.
    pub(crate) fn drain_response(&mut self) -> wasmtime::Result<()> {
        let mut answer = self
            .http
            .answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if matches!(*answer, ResponseState::None) {
            return Ok(());
        }
        *answer = match std::mem::take(&mut *answer) {
            ResponseState::Head(response) => {
                let (head, body) = response.into_parts();
                ResponseState::Body(sendable(&head), body)
            }
            other => other,
        };
        let ResponseState::Body(head, body) = &mut *answer else {
            return Ok(());
        };
        loop {
            match now(body.frame()) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.stdout.write(bytes)?;
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    *answer = ResponseState::Failed;
                    return Ok(());
                }
                Poll::Ready(None) => {
                    *answer = ResponseState::Complete(head.clone());
                    return Ok(());
                }
            }
        }
    }

    /// The response, after the handler has returned.
    pub(crate) fn end_exchange(&mut self) -> wasmtime::Result<Option<Sendable>> {
        self.drain_response()?;
        // A body that was left open ends with the guest.
        *self.wasi.ctx().table = ResourceTable::new();
        self.drain_response()?;
        let mut answer = self
            .http
            .answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(match std::mem::take(&mut *answer) {
            ResponseState::Complete(head) => Some(head),
            _ => None,
        })
    }
}

fn sendable(head: &Parts) -> Sendable {
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| HttpField::new(name.as_str(), value.as_bytes()));
    HttpResponse::new(head.status.as_u16(), fields.collect::<Result<_, _>>()?)
}

/// What the future gives without waiting.
fn now<F: Future>(future: F) -> Poll<F::Output> {
    pin!(unconstrained(future)).poll(&mut Context::from_waker(Waker::noop()))
}
