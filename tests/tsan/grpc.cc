// Tells ThreadSanitizer in what order gRPC does things: what came before the start of a batch of
// operations comes before its completion, on whatever thread, and the calls of a server come before
// its end. The library's own functions are called; they are those that its C++ part calls at either
// end of a batch or of a server. Part of every program of the tsan preset.

#include <dlfcn.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <sanitizer/tsan_interface.h>

namespace {

// A reader of a message does not know its call, nor does a server.
char any_call, any_end;

template <typename Function>
Function Original(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t nops, void* tag,
                                      void* reserved) {
  static const auto original = Original<decltype(&grpc_call_start_batch)>("grpc_call_start_batch");
  __tsan_release(call);
  __tsan_release(&any_call);
  return original(call, ops, nops, tag, reserved);
}

// The last thing of a completion before its callback, and of a call after its reactor's OnDone().
void grpc_call_unref(grpc_call* call) {
  static const auto original = Original<decltype(&grpc_call_unref)>("grpc_call_unref");
  __tsan_acquire(call);
  __tsan_release(&any_end);
  original(call);
}

void grpc_server_destroy(grpc_server* server) {
  static const auto original = Original<decltype(&grpc_server_destroy)>("grpc_server_destroy");
  __tsan_acquire(&any_end);
  original(server);
}

int grpc_byte_buffer_reader_init(grpc_byte_buffer_reader* reader, grpc_byte_buffer* buffer) {
  static const auto original =
      Original<decltype(&grpc_byte_buffer_reader_init)>("grpc_byte_buffer_reader_init");
  __tsan_acquire(&any_call);
  return original(reader, buffer);
}

}  // extern "C"
