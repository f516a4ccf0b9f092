#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "evaserve/v1/inference.pb.h"
#include "models/tokenizer.h"
#include "server/engine/request.h"

namespace evaserve {

// What a generation has made since its last message. Not thread-safe.
class GenerateBuffer {
 public:
  // From now on tokens are reported too. `tokenizer` must live as long as Add() is called.
  void ReportTokens(const Tokenizer& tokenizer) { tokenizer_ = &tokenizer; }

  void Add(std::string_view text, std::span<const GeneratedToken> tokens);
  void AddFinish(const Completion& completion);

  bool empty() const { return !has_content_; }
  size_t bytes() const { return bytes_; }  // about

  // Moves all into `message`, whatever was there.
  void MoveTo(v1::GenerateResponse& message);

 private:
  const Tokenizer* tokenizer_ = nullptr;
  v1::GenerateResponse content_;
  size_t bytes_ = 0;
  bool has_content_ = false;
};

}  // namespace evaserve
