//! What people do today: `curl` through C tor to a C tor onion service in front
//! of nginx.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{DEADLINE, PAYLOAD};
use crate::bench::millis_since;

/// Milliseconds of one request. A user name of its own makes C tor use a
/// circuit of its own.
pub(super) async fn curl(socks: SocketAddr, onion: &str, round: u16) -> Result<f64> {
    let started = Instant::now();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "110"])
        .arg("--socks5-hostname")
        .arg(socks.to_string())
        .args(["--proxy-user", &format!("round{round}:{round}")])
        .args(["--data-binary", &"a".repeat(PAYLOAD)])
        .arg(format!("http://{onion}/"))
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, output).await??;
    let elapsed = millis_since(started);
    ensure!(
        output.status.success(),
        "curl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        output.stdout.len() == PAYLOAD,
        "nginx answered {} bytes",
        output.stdout.len()
    );
    Ok(elapsed)
}

/// nginx on a free loopback port, answering as many bytes as it is sent.
pub(super) fn nginx(dir: &Path) -> Result<(Child, SocketAddr)> {
    // Taken and given back at once; nobody else on this machine wants it.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let answer = "A".repeat(PAYLOAD);
    let config = format!(
        "daemon off; master_process off; error_log stderr; pid {dir}/nginx.pid;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"{answer}\"; }} }} }}\n",
        dir = dir.display(),
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config)?;
    let child = Command::new("nginx")
        .arg("-p")
        .arg(dir)
        .arg("-c")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("nginx.log"))?)
        .kill_on_drop(true)
        .spawn()
        .context("nginx (Debian: nginx-light)")?;
    Ok((child, (Ipv4Addr::LOCALHOST, port).into()))
}
