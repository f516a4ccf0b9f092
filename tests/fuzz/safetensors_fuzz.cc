// A .safetensors file from anywhere: of what it offers every byte can be read.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "models/io/safetensors.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int file = memfd_create("fuzz", 0);
  if (file < 0 || write(file, data, size) != static_cast<ssize_t>(size)) std::abort();
  {
    const auto opened = evaserve::Safetensors::Open("/proc/self/fd/" + std::to_string(file));
    if (opened.ok()) {
      std::string copy;
      for (const auto& [name, tensor] : opened->tensors()) {
        copy.assign(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
      }
    }
  }
  close(file);
  return 0;
}
