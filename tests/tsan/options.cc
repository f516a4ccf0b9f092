// What ThreadSanitizer is told about the distribution's gRPC and civetweb. Part of every program of
// the tsan preset.
//
// The library is not built with the sanitizer, so the order that its atomics make is unknown: what
// it copies, frees and hands from thread to thread looks like races. Nothing here names a function
// of ours: a race of two accesses by our code is reported, whoever called it.

extern "C" {

const char* __tsan_default_options();
const char* __tsan_default_suppressions();

// Enough history for a suppression to see where the other access came from.
const char* __tsan_default_options() { return "history_size=7"; }

const char* __tsan_default_suppressions() {
  return
      // memcpy, free and the like, called by these libraries.
      "called_from_lib:libgrpc.so\n"
      "called_from_lib:libgrpc++.so\n"
      "called_from_lib:libgpr.so\n"
      "called_from_lib:libupb.so\n"
      "called_from_lib:libabsl_cord.so\n"
      "called_from_lib:libabsl_graphcycles_internal.so\n"
      "called_from_lib:libabsl_status.so\n"
      "called_from_lib:libabsl_strings.so\n"
      "called_from_lib:libabsl_synchronization.so\n"
      "called_from_lib:libabsl_time.so\n"
      "called_from_lib:libabsl_time_zone.so\n"
      "called_from_lib:libcivetweb.so\n"  // gmtime(), for the header Date
      "called_from_lib:libcrypto.so\n"
      "called_from_lib:libprotobuf.so\n"
      "called_from_lib:libssl.so\n"
      // Its headers, compiled into our code: the bytes of messages, and the end of calls and their
      // operations, which gRPC counts references of.
      "race_top:^google::protobuf::\n"
      "race_top:^grpc::\n"
      "race_top:^operator delete\n"
      "race:^grpc::internal::CallbackWithSuccessTag::Clear\n"
      "race:^grpc::internal::CallOpServerSendStatus::\n"
      "race:^grpc::internal::InterceptorBatchMethodsImpl::\n"
      "race:^grpc::internal::ServerCallbackCall::ServerCallbackCall\n"
      // It closes the connections that our listener hands to it, and their numbers come again.
      "race_top:accept4\n";
}

}  // extern "C"
