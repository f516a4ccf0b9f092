#include "models/eva_encoder/masked_text.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/text/words.h"

namespace evaserve {
namespace {

absl::StatusOr<TokenId> FindMask(const std::string& file, const Dictionary& dictionary,
                                 const EvaEncoderConfig& config) {
  if (config.mask_token) return *config.mask_token;
  const TokenId listed = dictionary.Find(MaskedText::kMask);
  if (listed != Dictionary::kUnknown) return listed;
  for (TokenId token = Dictionary::kNumSpecial; token < dictionary.size(); ++token) {
    if (dictionary.Word(token).empty()) return token;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": the ", dictionary.size(), " embeddings of the model all have words, ",
                   "and none is <mask>; config.json may name it as \"mask_token_id\""));
}

}  // namespace

absl::StatusOr<MaskedText> MaskedText::Load(const std::filesystem::path& directory,
                                            const EvaEncoderConfig& config) {
  const std::string file = (directory / "dict.txt").string();
  absl::StatusOr<Dictionary> dictionary = Dictionary::Read(file, config.vocab_size);
  if (!dictionary.ok()) return dictionary.status();
  if (config.padding_idx != Dictionary::kPad) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": \"padding_idx\" of config.json is ",
                                                   config.padding_idx, ", the dictionary's is ",
                                                   Dictionary::kPad));
  }
  const absl::StatusOr<TokenId> mask_token = FindMask(file, *dictionary, config);
  if (!mask_token.ok()) return mask_token.status();
  std::optional<BytePairEncoding> bpe;
  if (config.has_bpe) {
    absl::StatusOr<BytePairEncoding> read = BytePairEncoding::Read(directory / "bpe.codes");
    if (!read.ok()) return read.status();
    bpe = *std::move(read);
  }
  return MaskedText(*std::move(dictionary), *mask_token, std::move(bpe));
}

MaskedText::MaskedText(Dictionary dictionary, TokenId mask_token,
                       std::optional<BytePairEncoding> bpe)
    : dictionary_(std::move(dictionary)), mask_token_(mask_token), bpe_(std::move(bpe)) {
  for (TokenId token = 0; token < dictionary_.size(); ++token) {
    max_word_bytes_ = std::max(max_word_bytes_, Word(token).size());
  }
}

std::vector<TokenId> MaskedText::Encode(std::string_view text) const {
  std::vector<TokenId> tokens = {Dictionary::kBos};
  for (size_t mask; (mask = text.find(kMask)) != std::string_view::npos;) {
    AppendWords(text.substr(0, mask), tokens);
    tokens.push_back(mask_token_);
    text.remove_prefix(mask + kMask.size());
  }
  AppendWords(text, tokens);
  tokens.push_back(Dictionary::kEos);
  return tokens;
}

void MaskedText::AppendWords(std::string_view text, std::vector<TokenId>& tokens) const {
  for (const std::string_view word : SplitWords(text)) {
    if (!bpe_) {
      tokens.push_back(dictionary_.Find(word));
      continue;
    }
    for (const std::string& part : bpe_->Split(word)) tokens.push_back(dictionary_.Find(part));
  }
}

std::string_view MaskedText::Word(TokenId token) const {
  if (token == mask_token_) return kMask;
  const std::string_view name = Dictionary::SpecialName(token);
  return name.empty() ? dictionary_.Word(token) : name;
}

}  // namespace evaserve
