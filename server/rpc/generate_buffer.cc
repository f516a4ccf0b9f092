#include "server/rpc/generate_buffer.h"

#include "server/rpc/evaserve_requests.h"

namespace evaserve {

void GenerateBuffer::Add(std::string_view text, std::span<const GeneratedToken> tokens) {
  // A token with logprobs costs a message of about this much memory, and each of its top ones too.
  constexpr size_t kTokenBytes = 64;
  if (!text.empty()) {
    content_.mutable_text()->append(text);
    bytes_ += text.size();
    has_content_ = true;
  }
  if (tokenizer_ == nullptr) return;
  for (const GeneratedToken& token : tokens) {
    AddToken(token, *tokenizer_, content_);
    bytes_ += kTokenBytes * (1 + token.sample.top.size());
    has_content_ = true;
  }
}

void GenerateBuffer::AddFinish(const Completion& completion) {
  FillFinish(completion, *content_.mutable_finish());
  has_content_ = true;
}

void GenerateBuffer::MoveTo(v1::GenerateResponse& message) {
  message.Swap(&content_);
  content_.Clear();
  bytes_ = 0;
  has_content_ = false;
}

}  // namespace evaserve
