//! The head of an HTTP request to a `wasi:http` function, and of its response.
//!
//! The body travels as the call's input and output. Nothing is added to what
//! the caller names: a `User-Agent` or a date of ours would tell callers apart.

use std::fmt;
use std::str::FromStr as _;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use minicbor::{CborLen, Decode, Encode};
use thiserror::Error;

use crate::{ErrorKind, HasKind, Retry};

/// Most header fields in one head.
pub(crate) const MAX_FIELDS: usize = 64;
/// Most bytes of names and values in one head, and of a path.
const MAX_BYTES: usize = 16 << 10;
/// Longest method, in bytes.
const MAX_METHOD: usize = 32;

/// What an HTTP function is asked: a method, a path with its query, and fields.
#[derive(Clone, PartialEq, Eq, Encode, CborLen)]
#[cbor(array)]
pub struct HttpRequest {
    #[n(0)]
    method: String,
    #[n(1)]
    path: String,
    #[n(2)]
    fields: Vec<HttpField>,
}

/// How an HTTP function answered.
#[derive(Clone, PartialEq, Eq, Encode, CborLen)]
#[cbor(array)]
pub struct HttpResponse {
    #[n(0)]
    status: u16,
    #[n(1)]
    fields: Vec<HttpField>,
}

/// One header field (RFC 9110 section 5), its name in lower case.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct HttpField {
    #[n(0)]
    name: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    value: Vec<u8>,
}

/// Why something is not the head of an HTTP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Not a field, or one with forbidden bytes.
    #[error("a header must look like `name: value`")]
    Field,
    /// Not a method.
    #[error("the method must be a word like GET or POST")]
    Method,
    /// Not an absolute path with an optional query.
    #[error("the path must begin with `/` and have its special characters escaped")]
    Path,
    /// Not a status code.
    #[error("the status must be 100 to 999")]
    Status,
    /// More than this protocol carries.
    #[error("too many or too long header fields: at most {MAX_FIELDS}, 16 KiB together")]
    TooLong,
}

impl HasKind for HttpError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl HttpResponse {
    /// Most header fields.
    pub const MAX_HEAD_FIELDS: usize = MAX_FIELDS;
    /// Most bytes of all of them.
    pub const MAX_HEAD_BYTES: usize = MAX_BYTES;
}

impl HttpRequest {
    /// A request without fields.
    ///
    /// # Errors
    ///
    /// [`HttpError`] for what RFC 9110 does not allow.
    pub fn new(method: &str, path: &str) -> Result<Self, HttpError> {
        if method.len() > MAX_METHOD || Method::from_str(method).is_err() {
            return Err(HttpError::Method);
        }
        if path.len() > MAX_BYTES {
            return Err(HttpError::TooLong);
        }
        if !path.starts_with('/') || PathAndQuery::from_str(path).is_err() {
            return Err(HttpError::Path);
        }
        Ok(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            fields: Vec::new(),
        })
    }

    /// The same with one more field, written `name: value`.
    ///
    /// # Errors
    ///
    /// [`HttpError::Field`] or [`HttpError::TooLong`].
    pub fn with_field(mut self, line: &str) -> Result<Self, HttpError> {
        let (name, value) = line.split_once(':').ok_or(HttpError::Field)?;
        self.fields
            .push(HttpField::new(name, value.trim().as_bytes())?);
        bounded(self.fields.iter())?;
        Ok(self)
    }

    /// The same with these fields besides.
    ///
    /// # Errors
    ///
    /// [`HttpError::TooLong`].
    pub fn with_fields(
        mut self,
        fields: impl IntoIterator<Item = HttpField>,
    ) -> Result<Self, HttpError> {
        self.fields.extend(fields);
        bounded(self.fields.iter())?;
        Ok(self)
    }

    /// The method, such as `GET`.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path and query, beginning with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The fields, in order.
    #[must_use]
    pub fn fields(&self) -> &[HttpField] {
        &self.fields
    }

    /// Bytes that count against a plan's input limit.
    #[must_use]
    pub fn len(&self) -> usize {
        self.method.len() + self.path.len() + self.fields.iter().map(HttpField::len).sum::<usize>()
    }

    /// Never: a request has a method and a path.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl HttpResponse {
    /// A response head.
    ///
    /// # Errors
    ///
    /// [`HttpError`] for what RFC 9110 does not allow, or too much of it.
    pub fn new(status: u16, fields: Vec<HttpField>) -> Result<Self, HttpError> {
        if StatusCode::from_u16(status).is_err() {
            return Err(HttpError::Status);
        }
        bounded(fields.iter())?;
        Ok(Self { status, fields })
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The fields, in order.
    #[must_use]
    pub fn fields(&self) -> &[HttpField] {
        &self.fields
    }
}

impl HttpField {
    /// A field.
    ///
    /// # Errors
    ///
    /// [`HttpError::Field`].
    pub fn new(name: &str, value: &[u8]) -> Result<Self, HttpError> {
        let parsed = HeaderName::from_str(name.trim()).map_err(|_| HttpError::Field)?;
        HeaderValue::from_bytes(value).map_err(|_| HttpError::Field)?;
        Ok(Self {
            name: parsed.as_str().to_owned(),
            value: value.to_vec(),
        })
    }

    /// The name, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value: visible ASCII, spaces and tabs, and bytes above 127.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    fn len(&self) -> usize {
        self.name.len() + self.value.len()
    }
}

fn bounded<'a>(fields: impl ExactSizeIterator<Item = &'a HttpField>) -> Result<(), HttpError> {
    if fields.len() > MAX_FIELDS || fields.map(HttpField::len).sum::<usize>() > MAX_BYTES {
        return Err(HttpError::TooLong);
    }
    Ok(())
}

impl<'b, C> Decode<'b, C> for HttpRequest {
    fn decode(d: &mut minicbor::Decoder<'b>, cx: &mut C) -> Result<Self, minicbor::decode::Error> {
        expect_array(d, 3)?;
        let mut request = Self::new(d.str()?, d.str()?).map_err(refused)?;
        request.fields = fields(d, cx)?;
        Ok(request)
    }
}

impl<'b, C> Decode<'b, C> for HttpResponse {
    fn decode(d: &mut minicbor::Decoder<'b>, cx: &mut C) -> Result<Self, minicbor::decode::Error> {
        expect_array(d, 2)?;
        let status = d.u16()?;
        Self::new(status, fields(d, cx)?).map_err(refused)
    }
}

/// Decodes fields, and stops at the bounds before it keeps them.
fn fields<C>(
    d: &mut minicbor::Decoder<'_>,
    cx: &mut C,
) -> Result<Vec<HttpField>, minicbor::decode::Error> {
    let mut fields: Vec<HttpField> = Vec::new();
    for field in d.array_iter_with::<C, HttpField>(cx)? {
        let field = field?;
        fields.push(HttpField::new(&field.name, &field.value).map_err(refused)?);
        bounded(fields.iter()).map_err(refused)?;
    }
    Ok(fields)
}

fn expect_array(d: &mut minicbor::Decoder<'_>, len: u64) -> Result<(), minicbor::decode::Error> {
    if d.array()? == Some(len) {
        return Ok(());
    }
    Err(minicbor::decode::Error::message("not an HTTP head"))
}

fn refused(error: HttpError) -> minicbor::decode::Error {
    minicbor::decode::Error::message(error.to_string())
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

impl fmt::Debug for HttpField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpField([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    #[test]
    fn takes_what_a_client_would_send_and_nothing_else() {
        let request = HttpRequest::new("POST", "/a?b=%20c")
            .and_then(|request| request.with_field("Content-Type: text/plain"))
            .expect("a good request");
        assert_eq!(request.fields()[0].name(), "content-type");
        assert_eq!(request.fields()[0].value(), b"text/plain");
        assert_eq!(
            decode::<HttpRequest>(&encode(&request)),
            Ok(request.clone())
        );

        assert_eq!(HttpRequest::new("G T", "/").err(), Some(HttpError::Method));
        assert_eq!(HttpRequest::new("", "/").err(), Some(HttpError::Method));
        let two_words = HttpRequest::new("GET /", "/").err();
        assert_eq!(two_words, Some(HttpError::Method));
        for path in [
            "",
            "a",
            "path",
            "http://elsewhere/",
            "/a b",
            "/\n",
            "/\r\nx: y",
        ] {
            assert_eq!(
                HttpRequest::new("GET", path).err(),
                Some(HttpError::Path),
                "{path:?}"
            );
        }
        for field in ["no colon", "a b: c", ": c", "a: b\nc: d", "a: b\r"] {
            let made = request.clone().with_field(field);
            // A trailing carriage return is only white space.
            assert_eq!(made.is_err(), field != "a: b\r", "{field:?}");
        }
        assert!(HttpField::new("a", b"b").is_ok());
        for (name, value) in [("a", &b"b\r\nc: d"[..]), ("a b", b"c")] {
            let made = HttpField::new(name, value);
            assert_eq!(made.err(), Some(HttpError::Field), "{name:?}");
        }
    }

    #[test]
    fn fields_are_bounded_on_both_sides_of_the_wire() {
        let mut request = HttpRequest::new("GET", "/").expect("good");
        for number in 0..MAX_FIELDS {
            request = request
                .with_field(&format!("x-{number}: y"))
                .expect("within the bound");
        }
        assert!(decode::<HttpRequest>(&encode(&request)).is_ok());
        assert_eq!(
            request.clone().with_field("one: more").err(),
            Some(HttpError::TooLong)
        );
        let many = (0..40_000).map(|number| HttpField::new(&format!("x-{number}"), b""));
        let many: Vec<_> = many.map(|field| field.expect("a field")).collect();
        let get = HttpRequest::new("GET", "/").expect("good");
        let too_many = get.clone().with_fields(many.clone()).err();
        assert_eq!(too_many, Some(HttpError::TooLong));
        assert!(get.with_fields(many.into_iter().take(MAX_FIELDS)).is_ok());
        request
            .fields
            .push(HttpField::new("one", b"more").expect("good"));
        assert!(decode::<HttpRequest>(&encode(&request)).is_err());
        let long = HttpRequest {
            fields: vec![],
            ..request
        };
        let long = long.with_field(&format!("x: {}", "y".repeat(MAX_BYTES)));
        assert_eq!(long.err(), Some(HttpError::TooLong));
    }

    #[test]
    fn decoding_checks_every_part() {
        let good = HttpResponse::new(200, vec![HttpField::new("a", b"b").expect("good")]);
        let good = good.expect("good");
        assert_eq!(decode::<HttpResponse>(&encode(&good)), Ok(good.clone()));
        for bad in [
            HttpResponse {
                status: 99,
                ..good.clone()
            },
            HttpResponse {
                fields: vec![HttpField {
                    name: "A".into(),
                    value: vec![],
                }],
                ..good.clone()
            },
            HttpResponse {
                fields: vec![HttpField {
                    name: "a".into(),
                    value: b"\n".to_vec(),
                }],
                ..good
            },
        ] {
            assert!(decode::<HttpResponse>(&encode(&bad)).is_err());
        }
    }
}
