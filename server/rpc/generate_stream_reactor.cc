#include "server/rpc/generate_stream_reactor.h"

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/rpc/call_info.h"
#include "server/rpc/evaserve_requests.h"
#include "server/rpc/find_model.h"
#include "server/rpc/generate_buffer.h"
#include "server/rpc/grpc_status.h"

namespace evaserve {
namespace {

void FillError(const absl::Status& status, v1::PromptError& error) {
  error.set_code(static_cast<uint32_t>(status.raw_code()));
  error.set_message(MessageOf(status));
  error.set_retry_seconds(std::chrono::duration<double>(RetryDelay(status)).count());
}

}  // namespace

// A prompt on the stream, and the sink of its generation. What follows `pending_` is guarded by the
// stream's mutex.
class GenerateStreamReactor::Prompt : public StreamAnswer<v1::GenerateStreamResponse>,
                                      public ResponseSink,
                                      public std::enable_shared_from_this<Prompt> {
 public:
  Prompt(uint64_t index, std::shared_ptr<GenerateStreamReactor> stream, const std::string& id)
      : index_(index), stream_(std::move(stream)) {
    scope = std::make_unique<RequestScope>(stream_->log_,
                                           stream_->authorizer_.CallerOf(stream_->context()),
                                           "GenerateStream", MethodKind::kInference);
    scope->SetId(RequestIdOf(stream_->context(), id));
  }

  uint64_t index() const { return index_; }

  // Their end may come before they return. Called one at a time.
  void Begin(const v1::BeginPrompt& begin);
  void Refuse(absl::Status status) { End(std::move(status)); }
  void Append(const std::string& piece);
  // There will be no more pieces.
  void OnRequestsEnd();

  bool OnTokens(std::string_view text, std::span<const GeneratedToken> tokens) override;
  void OnDone(Completion completion) override;

 private:
  bool TakeMessage(v1::GenerateStreamResponse& message) override;
  size_t pending_bytes() const override { return pending_.bytes(); }

  absl::Status TryBegin(const v1::BeginPrompt& begin);
  // Ends it with `status` instead of Cancelled.
  void Abort(const absl::Status& status);
  void End(absl::Status status);

  const uint64_t index_;
  const std::shared_ptr<GenerateStreamReactor> stream_;
  // Not owned: the engine's own thread, which may be the last to let go of this, could not destroy
  // it.
  std::weak_ptr<Engine> engine_;
  std::shared_ptr<RequestHandle> growing_;  // while it takes pieces
  uint64_t bytes_to_come_ = 0;

  GenerateBuffer pending_;
  absl::Status status_;        // once it has ended
  absl::Status abort_reason_;  // ok: none
};

void GenerateStreamReactor::Prompt::Begin(const v1::BeginPrompt& begin) {
  if (absl::Status status = TryBegin(begin); !status.ok()) End(std::move(status));
}

absl::Status GenerateStreamReactor::Prompt::TryBegin(const v1::BeginPrompt& begin) {
  const v1::GenerateRequest& from = begin.request();
  scope->input_bytes = InputBytes(from);
  absl::StatusOr<ReadyModel> model = FindTextModel(stream_->models_, *scope, from.model());
  if (!model.ok()) return model.status();

  Engine& engine = *model->engine;
  absl::StatusOr<Request> request =
      MakeRequest(from, engine.info(), engine.tokenizer(), begin.bytes_to_come());
  if (!request.ok()) return request.status();
  request->id = scope->id();
  request->deadline = stream_->deadline();
  request->sink = shared_from_this();
  engine_ = model->engine;
  if (from.logprobs()) pending_.ReportTokens(engine.tokenizer());
  absl::StatusOr<std::shared_ptr<RequestHandle>> submitted = engine.Submit(*std::move(request));
  if (!submitted.ok()) return submitted.status();
  bytes_to_come_ = begin.bytes_to_come();
  if (bytes_to_come_ > 0) growing_ = *submitted;
  handle.Set(*std::move(submitted));
  return absl::OkStatus();
}

void GenerateStreamReactor::Prompt::Append(const std::string& piece) {
  const std::shared_ptr<Engine> engine = engine_.lock();
  if (engine == nullptr || piece.empty()) return;  // without an engine it has ended
  if (piece.size() > bytes_to_come_) {
    return Abort(absl::InvalidArgumentError(absl::StrCat(
        "piece has ", piece.size(), " bytes, by bytes_to_come ", bytes_to_come_, " are left")));
  }
  bytes_to_come_ -= piece.size();
  absl::Status status = growing_->Append(EncodePiece(piece, engine->tokenizer()));
  if (!status.ok()) return Abort(status);
  absl::MutexLock lock(&stream_->mutex_);
  if (scope != nullptr) scope->input_bytes += std::ssize(piece);
}

void GenerateStreamReactor::Prompt::OnRequestsEnd() {
  if (bytes_to_come_ == 0) return;
  Abort(absl::InvalidArgumentError(
      absl::StrCat("prompt is not complete: by bytes_to_come ", bytes_to_come_, " are missing")));
}

void GenerateStreamReactor::Prompt::Abort(const absl::Status& status) {
  {
    absl::MutexLock lock(&stream_->mutex_);
    abort_reason_.Update(status);  // the first one counts
  }
  handle.Cancel();
}

bool GenerateStreamReactor::Prompt::OnTokens(std::string_view text,
                                             std::span<const GeneratedToken> tokens) {
  return stream_->Deliver(shared_from_this(), [&] {
    pending_.Add(text, tokens);
    return !pending_.empty();
  });
}

void GenerateStreamReactor::Prompt::OnDone(Completion completion) {
  scope->Add(completion);
  stream_->DeliverEnd(shared_from_this(), completion.status, [&](absl::Status& told) {
    const bool was_aborted = absl::IsCancelled(told) && !stream_->has_failed();
    if (was_aborted && !abort_reason_.ok()) told = abort_reason_;
    status_ = told;
    if (told.ok()) pending_.AddFinish(completion);
  });
}

void GenerateStreamReactor::Prompt::End(absl::Status status) {
  stream_->DeliverEnd(shared_from_this(), std::move(status),
                      [&](absl::Status& told) { status_ = told; });
}

bool GenerateStreamReactor::Prompt::TakeMessage(v1::GenerateStreamResponse& message) {
  message.set_index(index_);
  if (!pending_.empty()) {
    pending_.MoveTo(*message.mutable_response());
    return !status_.ok();
  }
  FillError(status_, *message.mutable_error());
  return false;
}

GenerateStreamReactor* GenerateStreamReactor::Start(grpc::CallbackServerContext& context,
                                                    ModelRepository& models, RequestLog& log,
                                                    const Authorizer& authorizer) {
  std::shared_ptr<GenerateStreamReactor> reactor(
      new GenerateStreamReactor(context, models, log, authorizer));
  reactor->Run();
  return reactor.get();
}

GenerateStreamReactor::GenerateStreamReactor(grpc::CallbackServerContext& context,
                                             ModelRepository& models, RequestLog& log,
                                             const Authorizer& authorizer)
    : AnswerStream(context, /*errors_end_call=*/false),
      models_(models),
      log_(log),
      authorizer_(authorizer) {}

void GenerateStreamReactor::OnRequest(const v1::GenerateStreamRequest& request) {
  switch (request.action_case()) {
    case v1::GenerateStreamRequest::kBegin:
      return Begin(request.index(), request.begin());
    case v1::GenerateStreamRequest::kPiece:
      // One for a prompt that has failed was under way when its client heard of it.
      if (auto prompt = Find(request.index()); prompt != nullptr) prompt->Append(request.piece());
      return;
    case v1::GenerateStreamRequest::kCancel:
      if (auto prompt = Find(request.index()); prompt != nullptr) prompt->handle.Cancel();
      return;
    case v1::GenerateStreamRequest::ACTION_NOT_SET:
      return Reject(absl::InvalidArgumentError(absl::StrCat(
          "action is absent at index ", request.index(), ", allowed are begin, piece, cancel")));
  }
}

void GenerateStreamReactor::Begin(uint64_t index, const v1::BeginPrompt& begin) {
  auto prompt = std::make_shared<Prompt>(
      index, std::static_pointer_cast<GenerateStreamReactor>(shared_from_this()),
      begin.request().request_id());
  bool is_taken, is_full;
  {
    absl::MutexLock lock(&mutex_);
    is_taken = prompts_.contains(index);
    is_full = prompts_.size() >= kMaxPrompts;
    if (!is_taken && !OpenLocked(prompt)) return;
    if (!is_taken) prompts_[index] = prompt;
  }
  if (is_taken) {
    return Reject(absl::InvalidArgumentError(
        absl::StrCat("index ", index, " begins again, its prompt has not ended")));
  }
  if (!is_full) return prompt->Begin(begin);
  prompt->Refuse(absl::ResourceExhaustedError(absl::StrCat(
      "the stream has ", kMaxPrompts, " prompts that have not ended, the most allowed")));
}

void GenerateStreamReactor::Reject(const absl::Status& status) {
  {
    RequestScope scope(log_, authorizer_.CallerOf(context()), "GenerateStream",
                       MethodKind::kInference);
    scope.SetId(RequestIdOf(context(), ""));
    scope.status = status;
  }
  FailCall(status);
}

void GenerateStreamReactor::OnRequestsEnd() {
  if (context().IsCancelled()) return;  // that is why there are no more
  std::vector<std::shared_ptr<Prompt>> prompts;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [index, prompt] : prompts_) prompts.push_back(prompt);
  }
  for (const auto& prompt : prompts) prompt->OnRequestsEnd();
}

void GenerateStreamReactor::OnLast(const Answer& answer) {
  const auto found = prompts_.find(static_cast<const Prompt&>(answer).index());
  // The second time the index may be another's.
  if (found != prompts_.end() && found->second.get() == &answer) prompts_.erase(found);
}

std::shared_ptr<GenerateStreamReactor::Prompt> GenerateStreamReactor::Find(uint64_t index) {
  absl::MutexLock lock(&mutex_);
  const auto found = prompts_.find(index);
  return found == prompts_.end() ? nullptr : found->second;
}

}  // namespace evaserve
