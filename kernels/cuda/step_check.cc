#include "kernels/cuda/step_check.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

absl::Status CheckSlots(PageList pages, int64_t num_slots, int num_pages,
                        const std::string& field) {
  if (num_slots < 0 || num_slots > std::ssize(pages) * kCudaPageSlots) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", num_slots, " slots in ",
                                                   pages.size(), " pages of ", kCudaPageSlots));
  }
  for (const int32_t page : pages) {
    if (page >= 0 && page < num_pages) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": page ", page, " is outside [0, ", num_pages, ")"));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const StepOptions& options) {
  const int head_dim = options.shape.head_dim;
  if (!IsCudaHeadDim(head_dim)) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim is ", head_dim, "; allowed on a device: 32, 64, 96, 128"));
  }
  if (options.chunk < 1 || kCudaPageSlots % options.chunk != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chunk is ", options.chunk, "; allowed on a device: divisors of ", kCudaPageSlots));
  }
  return absl::OkStatus();
}

absl::Status CheckAttend(const AttendSequence& s, int query_begin, int num_pages,
                         const std::string& field) {
  if (s.query_begin != query_begin || s.num_queries < 1 || s.num_queries > s.slots.num_window) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": ", s.num_queries, " queries from row ", s.query_begin, " on, ",
        s.slots.num_window, " window slots; its rows must follow those before it, and have slots"));
  }
  absl::Status status = CheckSlots(s.slots.window_pages, s.slots.num_window, num_pages,
                                   absl::StrCat(field, ".window_pages"));
  if (!status.ok()) return status;
  return CheckSlots(s.slots.summary_pages, s.slots.num_summaries, num_pages,
                    absl::StrCat(field, ".summary_pages"));
}

absl::Status CheckStore(const CudaStoreSequence& s, int num_rows, int chunk, int num_pages,
                        const std::string& field) {
  if (s.token_begin < 0 || s.num_tokens < 0 || s.token_begin + s.num_tokens > num_rows) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": tokens [", s.token_begin, ", ",
                                                   s.token_begin + s.num_tokens, ") of ", num_rows,
                                                   " rows"));
  }
  const int64_t end = int64_t{s.slot_begin} + s.num_tokens;
  absl::Status status =
      CheckSlots(s.window_pages, end, num_pages, absl::StrCat(field, ".window_pages"));
  if (!status.ok() || !s.summarize) return status;
  return CheckSlots(s.summary_pages, s.summary_begin + end / chunk, num_pages,
                    absl::StrCat(field, ".summary_pages"));
}

absl::Status CheckRoom(const StepOptions& options, const StepInput& input, const StepRoom& room) {
  if (options.shape.type == DType::kFloat32) {
    return absl::InvalidArgumentError("type is float32; allowed with a room: bfloat16, float16");
  }
  if (input.num_rows > room.num_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_rows is ", input.num_rows, "; there is room for ", room.num_rows));
  }
  for (size_t i = 0; i < input.attends.size(); ++i) {
    const AttendSequence& s = input.attends[i];
    const int64_t num_pages = CudaPagesOf(s.slots.num_window) + CudaPagesOf(s.slots.num_summaries);
    if (s.num_queries == 1 && num_pages <= room.pages_per_row) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("attends[", i, "]: ", s.num_queries, " queries and ", num_pages,
                     " pages; there is room for 1 and ", room.pages_per_row));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckAddress(const char* field, const void* address) {
  constexpr uintptr_t kAlignment = 16;
  if (address != nullptr && reinterpret_cast<uintptr_t>(address) % kAlignment == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is at ", absl::Hex(reinterpret_cast<uintptr_t>(address)),
                   "; allowed: memory that begins at a multiple of ", kAlignment, " bytes"));
}

absl::Status CheckRows(const char* field, const void* address, int64_t stride, int64_t width) {
  if (stride < width || stride % 8 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, " has a stride of ", stride, "; allowed: multiples of 8 from ", width, " on"));
  }
  return CheckAddress(field, address);
}

absl::Status CheckLayer(const StepOptions& options, const StepLayer& layer, const StepOut* out) {
  const int64_t width = int64_t{options.num_heads} * options.shape.head_dim;
  absl::Status status = CheckRows("q", layer.q, layer.stride, width);
  if (status.ok()) status = CheckAddress("pool", layer.pool);
  if (!status.ok()) return status;
  if (out != nullptr) return CheckRows("out", out->data, out->stride, width);
  const std::pair<const char*, const void*> addresses[] = {{"k", layer.k},     {"v", layer.v},
                                                           {"cos", layer.cos}, {"sin", layer.sin},
                                                           {"mu", layer.mu},   {"phi", layer.phi}};
  for (const auto& [field, address] : addresses) {
    if (status = CheckAddress(field, address); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckStep(const StepOptions& options, const StepInput& input, int num_pages,
                       const StepRoom* room) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  if (input.num_rows < (room == nullptr ? 1 : 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_rows is ", input.num_rows, "; allowed: 1 or more"));
  }
  if (std::ssize(input.positions) != input.num_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("positions: ", input.positions.size(), " for ", input.num_rows, " rows"));
  }
  int num_rows = 0;
  for (size_t i = 0; i < input.attends.size(); ++i) {
    absl::Status status =
        CheckAttend(input.attends[i], num_rows, num_pages, absl::StrCat("attends[", i, "]"));
    if (!status.ok()) return status;
    num_rows += input.attends[i].num_queries;
  }
  if (num_rows != input.num_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("attends: ", num_rows, " queries for ", input.num_rows, " rows"));
  }
  for (size_t i = 0; i < input.stores.size(); ++i) {
    absl::Status status = CheckStore(input.stores[i], input.num_rows, options.chunk, num_pages,
                                     absl::StrCat("stores[", i, "]"));
    if (!status.ok()) return status;
  }
  return room == nullptr ? absl::OkStatus() : CheckRoom(options, input, *room);
}

}  // namespace evaserve
