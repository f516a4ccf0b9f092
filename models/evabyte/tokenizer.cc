#include "models/evabyte/tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

constexpr TokenId kStartHeader = 9;
constexpr TokenId kEndHeader = 10;

constexpr std::string_view kNamedTokens[] = {"<pad>",
                                             "<bos>",
                                             "<eos>",
                                             "<unk>",
                                             "<sep>",
                                             "<repo_name>",
                                             "<file_sep>",
                                             "<t2v_token>",
                                             "<v2t_token>",
                                             "<|start_header_id|>",
                                             "<|end_header_id|>",
                                             "<|eot_id|>"};

absl::Status MessageError(size_t index, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat("messages[", index, "]: ", problem));
}

absl::Status Validate(std::span<const ChatMessage> messages) {
  if (messages.empty()) return absl::InvalidArgumentError("messages: none; at least 1 is needed");
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role == "user" || role == "assistant" || (role == "system" && i == 0)) continue;
    if (role == "system") {
      return MessageError(i, "role \"system\" is allowed in the first message only");
    }
    return MessageError(
        i, absl::StrCat("unknown role \"", role, "\"; allowed: system (first), user, assistant"));
  }
  return absl::OkStatus();
}

}  // namespace

EvaByteTokenizer::EvaByteTokenizer(bool has_chat_template) : has_chat_template_(has_chat_template) {
  std::copy(std::begin(kNamedTokens), std::end(kNamedTokens), special_names_.begin());
  for (size_t i = std::size(kNamedTokens); i < special_names_.size(); ++i) {
    special_names_[i] = absl::StrCat("<extra_id_", i, ">");
  }
  for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(i);
}

std::vector<TokenId> EvaByteTokenizer::Encode(std::string_view text, bool parse_special) const {
  std::vector<TokenId> tokens;
  tokens.reserve(text.size() + 1);
  tokens.push_back(kBos);
  while (parse_special && !text.empty()) {
    const size_t open = std::min(text.find('<'), text.size());
    AppendBytes(text.substr(0, open), tokens);
    text.remove_prefix(open);
    if (text.empty()) break;
    // No name begins like another one, so the first that fits is the only one.
    const auto name = std::find_if(special_names_.begin(), special_names_.end(),
                                   [&](const std::string& n) { return text.starts_with(n); });
    if (name == special_names_.end()) {
      AppendBytes(text.substr(0, 1), tokens);
      text.remove_prefix(1);
    } else {
      tokens.push_back(static_cast<TokenId>(name - special_names_.begin()));
      text.remove_prefix(name->size());
    }
  }
  AppendBytes(text, tokens);
  return tokens;
}

absl::StatusOr<std::vector<TokenId>> EvaByteTokenizer::EncodeChat(
    std::span<const ChatMessage> messages) const {
  if (!has_chat_template_) {
    return absl::InvalidArgumentError(
        "messages: this model has no chat template (its end-of-sequence token is not <|eot_id|>)");
  }
  if (absl::Status status = Validate(messages); !status.ok()) return status;
  std::vector<TokenId> tokens = {kBos};
  const bool has_system = messages[0].role == "system";
  AppendMessage("system", has_system ? messages[0].content : "", tokens);
  for (const ChatMessage& message : messages.subspan(has_system ? 1 : 0)) {
    AppendMessage(message.role, message.content, tokens);
  }
  AppendMessage("assistant", "", tokens);
  tokens.pop_back();  // the answer is still open
  return tokens;
}

void EvaByteTokenizer::AppendBytes(std::string_view text, std::vector<TokenId>& tokens) const {
  for (char c : text) tokens.push_back(kNumSpecial + static_cast<uint8_t>(c));
}

void EvaByteTokenizer::AppendMessage(std::string_view role, std::string_view content,
                                     std::vector<TokenId>& tokens) const {
  tokens.push_back(kStartHeader);
  AppendBytes(role, tokens);
  tokens.push_back(kEndHeader);
  AppendBytes("\n\n", tokens);
  AppendBytes(content, tokens);
  tokens.push_back(kEndOfTurn);
}

std::string_view EvaByteTokenizer::Decode(TokenId token) const {
  const int64_t byte = int64_t{token} - kNumSpecial;
  if (byte < 0 || byte >= static_cast<int64_t>(bytes_.size())) return {};
  return {&bytes_[byte], 1};
}

std::string_view EvaByteTokenizer::SpecialName(TokenId token) const {
  if (token < 0 || token >= kNumSpecial) return {};
  return special_names_[token];
}

}  // namespace evaserve
