#include "models/eva_translation/translation_text.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace evaserve {
namespace {

Language LanguageOf(const std::string& name) {
  return name == "de" ? Language::kGerman : Language::kEnglish;
}

absl::StatusOr<Dictionary> ReadDictionary(const std::filesystem::path& directory,
                                          const std::string& lang, int vocab_size) {
  absl::StatusOr<Dictionary> own =
      Dictionary::Read(directory / absl::StrCat("dict.", lang, ".txt"), vocab_size);
  if (own.ok() || own.status().code() != absl::StatusCode::kNotFound) return own;
  absl::StatusOr<Dictionary> common = Dictionary::Read(directory / "dict.txt", vocab_size);
  if (common.ok() || common.status().code() != absl::StatusCode::kNotFound) return common;
  return absl::NotFoundError(absl::StrCat(std::string(own.status().message()), ", nor dict.txt"));
}

}  // namespace

absl::StatusOr<TranslationText> TranslationText::Load(const std::filesystem::path& directory,
                                                      const EvaTranslationConfig& config) {
  const TranslationTextConfig& text = config.text;
  absl::StatusOr<Dictionary> source =
      ReadDictionary(directory, text.source_lang, config.encoder.vocab_size);
  if (!source.ok()) return source.status();
  absl::StatusOr<Dictionary> target =
      ReadDictionary(directory, text.target_lang, config.decoder.vocab_size);
  if (!target.ok()) return target.status();
  std::optional<BytePairEncoding> bpe;
  if (text.has_bpe) {
    absl::StatusOr<BytePairEncoding> read = BytePairEncoding::Read(directory / "bpe.codes");
    if (!read.ok()) return read.status();
    bpe = *std::move(read);
  }
  MosesTokenizer::Options options = {.language = LanguageOf(text.source_lang),
                                     .splits_hyphens = text.splits_hyphens};
  absl::Status status = ReadNonbreakingPrefixes(
      directory / absl::StrCat("nonbreaking_prefix.", text.source_lang), options);
  if (!status.ok() && status.code() != absl::StatusCode::kNotFound) return status;
  return TranslationText(text, MosesTokenizer(std::move(options)), *std::move(source),
                         *std::move(target), std::move(bpe));
}

std::vector<TokenId> TranslationText::Encode(std::string_view text) const {
  const std::vector<std::string> words =
      config_.tokenization == Tokenization::kMoses ? tokenizer_.Tokenize(text) : SplitAtSpace(text);
  std::vector<TokenId> tokens;
  for (const std::string& word : words) {
    if (!bpe_) {
      tokens.push_back(source_.Find(word));
      continue;
    }
    for (const std::string& part : bpe_->Split(word)) tokens.push_back(source_.Find(part));
  }
  tokens.push_back(Dictionary::kEos);
  return tokens;
}

std::string TranslationText::Decode(std::span<const TokenId> tokens) const {
  std::vector<std::string_view> words;
  for (const TokenId token : tokens) {
    if (token == Dictionary::kBos || token == Dictionary::kEos) continue;
    const std::string_view name = Dictionary::SpecialName(token);
    words.push_back(name.empty() ? target_.Word(token) : name);
  }
  std::string text =
      absl::StrJoin(words, " ", [](std::string* out, std::string_view word) { out->append(word); });
  if (bpe_) text = BytePairEncoding::Join(text);
  if (config_.tokenization == Tokenization::kSpace) return text;
  return MosesDetokenize(SplitAtSpace(text), LanguageOf(config_.target_lang));
}

}  // namespace evaserve
