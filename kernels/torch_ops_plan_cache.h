#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <algorithm>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace evaserve {

// Where the work of a call goes.
struct TorchGpuStream {
  void* stream = nullptr;                  // for the launchers
  std::optional<c10::Stream> of_libtorch;  // the same; the emulator has none
  bool is_capturing = false;               // the work becomes part of a CUDA graph
};

// Plans on a device, by the numbers of the calls that they are for. Making one uploads it, which a
// CUDA graph can do no more: it needs a call before it is captured. Those in graphs are kept
// forever. `Plan` has tensors(), its memory on the device. Thread-safe.
template <typename Plan>
class TorchPlanCache {
 public:
  using Key = std::vector<int64_t>;

  explicit TorchPlanCache(int max_plans) : max_plans_(max_plans) {}

  // The plan that there is, or what make() gives. `tensor` is an argument of the call, for the
  // message of c10::Error if a plan would have to be made while a graph is captured.
  template <typename Make>
  std::shared_ptr<const Plan> Get(Key key, const TorchGpuStream& stream, const at::Tensor& tensor,
                                  Make&& make) {
    const std::lock_guard lock(mutex_);
    auto entry = std::find_if(entries_.begin(), entries_.end(),
                              [&](const Entry& entry) { return entry.key == key; });
    if (entry == entries_.end()) {
      TORCH_CHECK(!stream.is_capturing, "torch.ops.eva was not called with tensors of ",
                  tensor.sizes(),
                  " before: call it once with the same arguments before a CUDA graph is captured");
      entries_.push_front({std::move(key), make()});
      DropOld();
    } else {
      entries_.splice(entries_.begin(), entries_, entry);
    }
    Entry& found = entries_.front();
    found.is_in_graph |= stream.is_capturing;
    // So that its memory is not given away while this stream needs it.
    if (stream.of_libtorch && !found.is_in_graph) {
      for (const at::Tensor& memory : found.plan->tensors()) {
        if (memory.defined()) memory.record_stream(*stream.of_libtorch);
      }
    }
    return found.plan;
  }

 private:
  struct Entry {
    Key key;
    std::shared_ptr<const Plan> plan;
    bool is_in_graph = false;
  };

  void DropOld() {
    int num_others = 0;
    std::erase_if(entries_, [&](const Entry& entry) {
      return !entry.is_in_graph && ++num_others > max_plans_;
    });
  }

  const int max_plans_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // the last used first
};

}  // namespace evaserve
