//! Requests to `wasi:http` functions and their responses, the way curl has them.

use std::fmt::Write as _;

use dlambda_proto::{ErrorKind, HttpRequest, HttpResponse, Report};
use http::StatusCode;
use serde_json::{Value, json};

use crate::cli::HttpArgs;
use crate::output::write_output;

impl HttpArgs {
    /// The request that was asked for, with nothing added to it.
    pub(crate) fn request(&self, has_body: bool) -> Result<Option<HttpRequest>, Report> {
        let Some(line) = &self.http else {
            return Ok(None);
        };
        let usual = if has_body { "POST" } else { "GET" };
        let method = line.method.as_deref().unwrap_or(usual);
        let mut request = HttpRequest::new(method, &line.path)?;
        for field in &self.headers {
            request = request.with_field(field)?;
        }
        Ok(Some(request))
    }

    pub(crate) fn is_asked_for(&self) -> bool {
        self.http.is_some()
    }

    /// Prints what a function wrote to standard output, or its response.
    pub(crate) fn print(&self, http: Option<&HttpResponse>, body: &[u8]) -> Result<(), Report> {
        if let (true, Some(response)) = (self.include, http) {
            write_output(&head(response), self.raw)?;
        }
        write_output(body, self.raw)
    }

    /// With `--fail`, an error for a response that is one.
    pub(crate) fn judge(&self, http: Option<&HttpResponse>) -> Result<(), Report> {
        match http.map(HttpResponse::status) {
            Some(status @ 400..) if self.fail => {
                let message = format!("the function answered with HTTP status {status}");
                Err(Report::new(ErrorKind::FunctionFailed, message)
                    .with_hint("look at the response; without --fail this is no failure"))
            }
            _ => Ok(()),
        }
    }
}

/// Status line and fields, as in an HTTP/1.1 message (RFC 9112 section 2.1).
fn head(response: &HttpResponse) -> Vec<u8> {
    let status = response.status();
    let known = StatusCode::from_u16(status).ok();
    let reason = known.and_then(|status| status.canonical_reason());
    let mut line = String::new();
    // Writing to a string never fails.
    let _ = write!(line, "HTTP/1.1 {status} {}\r\n", reason.unwrap_or_default());
    let mut head = line.into_bytes();
    for field in response.fields() {
        head.extend_from_slice(field.name().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(field.value());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A response's head in a report.
pub(crate) fn to_json(response: &HttpResponse) -> Value {
    let headers = response.fields().iter().map(|field| {
        let value = String::from_utf8_lossy(field.value());
        json!({ "name": field.name(), "value": value })
    });
    json!({ "status": response.status(), "headers": headers.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use dlambda_proto::HttpField;

    use crate::request_line::{RequestLine, header};

    use super::*;

    fn args(line: &str, headers: &[&str]) -> HttpArgs {
        HttpArgs {
            http: Some(line.parse().expect("a request line")),
            headers: headers.iter().map(|&field| field.to_owned()).collect(),
            include: false,
            fail: true,
            raw: false,
        }
    }

    #[test]
    fn the_method_is_given_or_follows_from_the_body() {
        for (line, has_body, method, path) in [
            ("/", false, "GET", "/"),
            ("/a?b=c", true, "POST", "/a?b=c"),
            ("GET /", true, "GET", "/"),
            (" DELETE  /x ", false, "DELETE", "/x"),
        ] {
            let request = args(line, &[])
                .request(has_body)
                .expect("good")
                .expect("asked");
            assert_eq!((request.method(), request.path()), (method, path), "{line}");
            assert!(request.fields().is_empty(), "nothing is added");
        }
        for bad in [
            "",
            "GET",
            "GET example.com/",
            "/a b c",
            "G(T /",
            "http://elsewhere/",
        ] {
            assert!(bad.parse::<RequestLine>().is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_are_those_that_were_named() {
        let request = args("/", &["X-One: 1", "x-one:2"]).request(false);
        let request = request.expect("good").expect("asked");
        let fields = request
            .fields()
            .iter()
            .map(|field| (field.name(), field.value()));
        assert_eq!(
            fields.collect::<Vec<_>>(),
            [("x-one", &b"1"[..]), ("x-one", &b"2"[..])]
        );
        assert!(header("X-One: 1").is_ok() && header("X-One").is_err());
        let many: Vec<&str> = std::iter::repeat_n("a: b", 1000).collect();
        let error = args("/", &many).request(false).expect_err("too many");
        assert_eq!(error.kind, ErrorKind::Usage);
    }

    #[test]
    fn heads_look_like_those_of_the_web() {
        let field = HttpField::new("content-type", b"text/plain").expect("good");
        let response = HttpResponse::new(404, vec![field]).expect("good");
        let expected = b"HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\n\r\n";
        assert_eq!(head(&response), expected);
        let unknown = HttpResponse::new(799, vec![]).expect("good");
        assert_eq!(head(&unknown), b"HTTP/1.1 799 \r\n\r\n");
    }

    #[test]
    fn only_fail_makes_a_failure() {
        let mut args = args("/", &[]);
        let response = |status| HttpResponse::new(status, vec![]).expect("good");
        assert!(args.judge(Some(&response(399))).is_ok());
        assert!(args.judge(None).is_ok());
        let error = args.judge(Some(&response(400))).expect_err("an error");
        assert_eq!(error.kind.exit_code(), 1);
        args.fail = false;
        assert!(args.judge(Some(&response(500))).is_ok());
    }
}
