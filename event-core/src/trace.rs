//! Traces that run through several services: from the span in which an event is made to the spans of
//! its handlers. The W3C trace context travels in the event's metadata, as `traceparent`.
//!
//! Without the feature `otel` an event has the trace context of the event that caused it.

use tracing::Span;

use crate::metadata::Metadata;

/// Writes the trace context of the present span into the metadata of an event made now, if it has
/// one.
#[cfg(feature = "otel")]
pub(crate) fn apply(metadata: &mut Metadata) {
    use opentelemetry::trace::TraceContextExt as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    let mut context = Span::current().context();
    if !context.span().span_context().is_valid() {
        // The span itself may be too fine for the exporter, though one around it is not.
        context = opentelemetry::Context::current();
    }
    let span = context.span();
    let own = span.span_context();
    if own.is_valid() {
        metadata.traceparent = Some(format!(
            "00-{}-{}-{:02x}",
            own.trace_id(),
            own.span_id(),
            own.trace_flags().to_u8()
        ));
    }
}

#[cfg(not(feature = "otel"))]
pub(crate) fn apply(_: &mut Metadata) {}

/// Makes the span of a handler go on with the trace of the event that it handles. To be called before
/// the span is entered.
#[cfg(feature = "otel")]
pub(crate) fn follow(span: &Span, traceparent: Option<&str>) {
    use opentelemetry::Context;
    use opentelemetry::trace::TraceContextExt as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    if let Some(parent) = traceparent.and_then(parse) {
        // It fails where nobody exports the span, and then there is nothing to do.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

#[cfg(not(feature = "otel"))]
pub(crate) fn follow(_: &Span, _: Option<&str>) {}

/// Links the span of what is done for many events at once with the traces of these.
#[cfg(feature = "otel")]
pub(crate) fn link<'a>(span: &Span, traceparents: impl Iterator<Item = Option<&'a str>>) {
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    if span.is_disabled() {
        return;
    }
    for context in traceparents.flatten().filter_map(parse).take(LINKS) {
        span.add_link(context);
    }
}

#[cfg(not(feature = "otel"))]
pub(crate) fn link<'a>(_: &Span, _: impl Iterator<Item = Option<&'a str>>) {}

/// OpenTelemetry's own bound.
#[cfg(feature = "otel")]
const LINKS: usize = 128;

/// Reads a trace context: `00-<32 hex>-<16 hex>-<2 hex>`, and from later versions as much.
#[cfg(feature = "otel")]
fn parse(traceparent: &str) -> Option<opentelemetry::trace::SpanContext> {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = traceparent.split('-');
    let [version, trace, span, flags] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    if !hex(version, 2) || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    if !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(all(test, feature = "otel"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_trace_context_is_ignored() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parse(valid).unwrap();
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled() && context.is_remote());
        assert!(parse(&format!("01{}-more", &valid[2..])).is_some());
        for invalid in [
            "",
            "00-1-2-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(parse(invalid).is_none(), "{invalid}");
        }
    }
}
