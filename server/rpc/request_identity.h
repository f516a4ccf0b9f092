#pragma once

#include <string>
#include <string_view>

namespace evaserve {

// Which trace a request is part of, as its caller says in metadata `traceparent`.
struct TraceContext {
  std::string trace_id;  // 32 hexadecimal digits; empty: part of none
  std::string span_id;   // 16, of the caller's span

  friend bool operator==(const TraceContext&, const TraceContext&) = default;
};

// Reads a traceparent, of version 00 or a later one, whose first four fields are the same. Empty if
// it is malformed, which is never an error.
//
// Source: https://www.w3.org/TR/trace-context/#traceparent-header
TraceContext ParseTraceparent(std::string_view text);

// By what the log tells a request from others.
struct RequestIdentity {
  std::string id;  // the client's name for it; empty: it has none
  TraceContext trace{};
};

}  // namespace evaserve
