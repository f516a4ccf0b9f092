#include "models/text/dictionary.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "models/io/mapped_file.h"
#include "models/text/lines.h"

namespace evaserve {
namespace {

constexpr std::string_view kSpecialNames[] = {"<s>", "<pad>", "</s>", "<unk>"};
constexpr std::string_view kOverwrite = " #fairseq:overwrite";

// Without what Python's rstrip() takes off.
std::string_view Stripped(std::string_view line) {
  return line.substr(0, line.find_last_not_of(" \t\r\f\v") + 1);
}

bool IsCount(std::string_view text) {
  int64_t count;
  return absl::SimpleAtoi(absl::string_view(text.data(), text.size()), &count);
}

absl::Status CheckSize(size_t num_words, std::string_view where, int vocab_size) {
  const auto size = static_cast<int64_t>(num_words);
  if (size <= vocab_size && size > vocab_size - Dictionary::kPadding) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      std::string(where), ": ", size, " words, special tokens included; the model's ", vocab_size,
      " embeddings allow ", std::max<int64_t>(vocab_size - Dictionary::kPadding + 1, 1), " to ",
      vocab_size));
}

}  // namespace

absl::StatusOr<Dictionary> Dictionary::Parse(std::string_view text, std::string_view where,
                                             int vocab_size) {
  Dictionary dictionary;
  for (int number = 1; !text.empty(); ++number) {
    const std::string_view line = Stripped(NextLine(text));
    if (absl::Status status = dictionary.Add(line); !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(std::string(where), ": line ", number, ": ", std::string(status.message())));
    }
  }
  absl::Status status = CheckSize(dictionary.words_.size(), where, vocab_size);
  if (!status.ok()) return status;
  dictionary.words_.resize(vocab_size);
  return dictionary;
}

absl::StatusOr<Dictionary> Dictionary::Read(const std::filesystem::path& path, int vocab_size) {
  const absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const auto bytes = file->bytes();
  return Parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string(),
               vocab_size);
}

absl::Status Dictionary::Add(std::string_view line) {
  const bool overwrites = line.ends_with(kOverwrite);
  if (overwrites) line.remove_suffix(kOverwrite.size());
  const size_t space = line.rfind(' ');
  if (space == std::string_view::npos || space == 0 || !IsCount(line.substr(space + 1))) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(line.substr(0, 64)), "\" is not a word and its count"));
  }
  const std::string_view word = line.substr(0, space);
  const bool is_special = std::ranges::find(kSpecialNames, word) != std::end(kSpecialNames);
  if (!overwrites && (is_special || ids_.contains(word))) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(word.substr(0, 64)), "\" comes twice"));
  }
  const auto id = static_cast<TokenId>(words_.size());
  words_.emplace_back(word);
  ids_[words_.back()] = id;
  return absl::OkStatus();
}

TokenId Dictionary::Find(std::string_view word) const {
  const auto found = ids_.find(word);
  return found == ids_.end() ? kUnknown : found->second;
}

std::string_view Dictionary::Word(TokenId token) const {
  if (token < 0 || token >= size()) return {};
  return words_[token];
}

std::string_view Dictionary::SpecialName(TokenId token) {
  if (token < 0 || token >= kNumSpecial) return {};
  return kSpecialNames[token];
}

}  // namespace evaserve
