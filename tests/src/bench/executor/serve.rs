//! Requests per second: an HTTP server around the executor, and `wasmtime
//! serve`, with the same component and the same load generator (`wrk`).

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use dlambda_executor::{Executor, ExecutorConfig, Function, Invocation, Limits};
use dlambda_proto::{HttpField, HttpRequest};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Report, Setting, example, in_process, isolated};

/// Connections of the load generator.
const CONNECTIONS: [u16; 2] = [1, 16];
/// For a server to come up.
const START: Duration = Duration::from_secs(60);

/// The three servers in turn, each under each load.
pub(crate) async fn throughput(setting: &Setting, report: &mut Report) -> Result<()> {
    for connections in CONNECTIONS {
        let seconds = setting.seconds;
        let (_server, address) = wasmtime_serve(&setting.wasmtime).await?;
        let rate = load(address, connections, seconds).await?;
        report.add(
            &format!("wasmtime serve, {connections} connections"),
            "requests/s",
            rate,
        );
        for (name, config) in [("in process", in_process()), ("in workers", isolated()?)] {
            let (server, address) = serve(config).await?;
            let rate = load(address, connections, seconds).await;
            server.abort();
            report.add(
                &format!("executor {name}, {connections} connections"),
                "requests/s",
                rate?,
            );
        }
    }
    Ok(())
}

async fn wasmtime_serve(program: &Path) -> Result<(Child, SocketAddr)> {
    let address = free_address()?;
    let component =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/functions/hello-http.wasm");
    let child = Command::new(program)
        .arg("serve")
        .args(["-S", "cli", "-O", "pooling-allocator=y"])
        .args(["-W", "fuel=1000000000,timeout=10s,max-memory-size=67108864"])
        .arg("--addr")
        .arg(address.to_string())
        .arg(component)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| {
            format!(
                "{} (scripts/install-wasmtime fetches it)",
                program.display()
            )
        })?;
    wait_for(address).await?;
    Ok((child, address))
}

async fn serve(config: ExecutorConfig) -> Result<(JoinHandle<()>, SocketAddr)> {
    let executor = Executor::new(config)?;
    executor.ready().await?;
    let (function, _) = executor.prepare(example("hello-http")?).await?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, executor.clone(), function.clone()));
        }
    });
    wait_for(address).await?;
    Ok((server, address))
}

async fn connection(stream: TcpStream, executor: Executor, function: Function) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let (executor, function) = (executor.clone(), function.clone());
        async move { Ok::<_, Infallible>(handle(&executor, &function, request).await) }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn handle(
    executor: &Executor,
    function: &Function,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let input = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let fields = head.headers.iter();
    let fields =
        fields.filter_map(|(name, value)| HttpField::new(name.as_str(), value.as_bytes()).ok());
    let asked = HttpRequest::new(head.method.as_str(), head.uri.path());
    let invocation = Invocation {
        input,
        http: asked.and_then(|asked| asked.with_fields(fields)).ok(),
        ..Invocation::default()
    };
    let outcome = executor.run(function, invocation, &Limits::default()).await;
    let mut response = Response::default();
    match outcome {
        Ok(outcome) if outcome.http.is_some() => *response.body_mut() = Full::new(outcome.stdout),
        _ => *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR,
    }
    response
}

/// Requests per second, none of which may fail.
async fn load(address: SocketAddr, connections: u16, seconds: u16) -> Result<f64> {
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .arg(format!("http://{address}/"))
        .kill_on_drop(true)
        .output()
        .await
        .context("wrk (Debian: wrk)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "requests failed: {text}"
    );
    let rate = text
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    rate.context("wrk printed no rate")?
        .trim()
        .parse()
        .context("wrk printed no number")
}

#[allow(clippy::disallowed_methods, reason = "our own server, on loopback")]
async fn wait_for(address: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < START {
        if timeout(START, TcpStream::connect(address))
            .await
            .is_ok_and(|stream| stream.is_ok())
        {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
    bail!("the server on {address} did not come up")
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
