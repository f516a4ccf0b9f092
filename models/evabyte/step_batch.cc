#include "models/evabyte/step_batch.h"

namespace evaserve {
namespace {

// Every sequence of an EvaByteModel is one of these.
EvaByteSequence& SequenceOf(const StepItem& item) {
  return *static_cast<EvaByteSequence*>(item.sequence);
}

}  // namespace

void StepBatch::Assign(std::span<const StepItem> items, EvaByteGeometry geometry) {
  tokens.clear();
  stores.clear();
  attends.clear();
  folds.clear();
  for (const StepItem& item : items) {
    const EvaByteSequence& sequence = SequenceOf(item);
    const int first_row = num_rows();
    const int num_tokens = static_cast<int>(item.tokens.size());
    const int num_before = geometry.NumWindow(sequence.length());
    const int num_summaries = static_cast<int>(geometry.NumSummaries(sequence.length()));
    tokens.insert(tokens.end(), item.tokens.begin(), item.tokens.end());
    stores.push_back({.token_begin = first_row,
                      .num_tokens = num_tokens,
                      .window_pages = sequence.window_pages(),
                      .slot_begin = num_before,
                      .position_begin = static_cast<int>(sequence.length())});
    attends.push_back({.slots = {.summary_pages = sequence.summary_pages(),
                                 .num_summaries = num_summaries,
                                 .window_pages = sequence.window_pages(),
                                 .num_window = num_before + num_tokens},
                       .query_begin = first_row,
                       .num_queries = num_tokens});
    if (num_before + num_tokens < geometry.window) continue;
    folds.push_back({.window_pages = sequence.window_pages(),
                     .num_chunks = geometry.window / geometry.chunk,
                     .summary_pages = sequence.summary_pages(),
                     .summary_begin = num_summaries});
  }
}

}  // namespace evaserve
