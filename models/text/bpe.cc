#include "models/text/bpe.h"

#include <algorithm>
#include <queue>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/io/mapped_file.h"
#include "models/text/lines.h"
#include "models/text/utf8.h"

namespace evaserve {
namespace {

constexpr std::string_view kEndOfWord = "</w>";
constexpr std::string_view kSeparator = "@@";
constexpr std::string_view kVersion = "#version:";

std::string_view Trimmed(std::string_view line) {
  const size_t begin = std::min(line.find_first_not_of("\r "), line.size());
  line.remove_prefix(begin);
  return line.substr(0, line.find_last_not_of("\r ") + 1);
}

// A word on its way: symbols that lie one after the other in `text`, as a list.
struct Symbols {
  static constexpr int kNone = -1;
  struct Symbol {
    size_t begin = 0, end = 0;  // in text; empty once it is part of the one before
    int previous = kNone, next = kNone;
  };

  explicit Symbols(std::string_view word) : text(word) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t bytes = CharacterBytes(word.substr(begin)).value_or(1);
      Add(begin, begin + bytes);
      begin += bytes;
    }
    text += kEndOfWord;
  }

  void Add(size_t begin, size_t end) {
    const int index = static_cast<int>(list.size());
    if (index > 0) list.back().next = index;
    list.push_back({begin, end, index - 1, kNone});
  }

  std::string_view At(int index) const {
    return std::string_view(text).substr(list[index].begin, list[index].end - list[index].begin);
  }

  // The symbol after it becomes part of it.
  void MergeWithNext(int index) {
    Symbol& symbol = list[index];
    Symbol& gone = list[symbol.next];
    symbol.end = gone.end;
    symbol.next = gone.next;
    if (gone.next != kNone) list[gone.next].previous = index;
    gone.end = gone.begin;
  }

  std::string text;  // the word and </w>
  std::vector<Symbol> list;
};

// A merge that was possible when it was found: of so many bytes from a symbol on.
struct Merge {
  int rank = 0;
  int index = 0;
  size_t end = 0;

  bool operator>(const Merge& other) const {
    return std::tie(rank, index) > std::tie(other.rank, other.index);
  }
};

// rank_of(left, right) is -1 for two symbols that are not merged.
template <typename RankOf>
void MergeAll(Symbols& symbols, RankOf&& rank_of) {
  std::priority_queue<Merge, std::vector<Merge>, std::greater<>> merges;
  const auto find = [&](int index) {
    if (index == Symbols::kNone || symbols.list[index].next == Symbols::kNone) return;
    const int next = symbols.list[index].next;
    const int rank = rank_of(symbols.At(index), symbols.At(next));
    if (rank >= 0) merges.push({rank, index, symbols.list[next].end});
  };
  const auto is_possible = [&](const Merge& merge) {
    const Symbols::Symbol& symbol = symbols.list[merge.index];
    if (symbol.begin == symbol.end || symbol.next == Symbols::kNone) return false;
    return symbols.list[symbol.next].end == merge.end &&
           rank_of(symbols.At(merge.index), symbols.At(symbol.next)) == merge.rank;
  };
  for (int i = 0; i + 1 < std::ssize(symbols.list); ++i) find(i);
  while (!merges.empty()) {
    // All of one rank, from left to right, before what becomes possible by them.
    std::vector<int> merged;
    for (const int rank = merges.top().rank; !merges.empty() && merges.top().rank == rank;) {
      const Merge merge = merges.top();
      merges.pop();
      if (!is_possible(merge)) continue;
      symbols.MergeWithNext(merge.index);
      merged.push_back(merge.index);
    }
    for (const int index : merged) {
      find(symbols.list[index].previous);
      find(index);
    }
  }
}

std::vector<std::string> Parts(const Symbols& symbols) {
  std::vector<std::string> parts;
  for (int i = 0; i != Symbols::kNone; i = symbols.list[i].next) {
    std::string_view part = symbols.At(i);
    if (symbols.list[i].next == Symbols::kNone) part.remove_suffix(kEndOfWord.size());
    if (!part.empty()) parts.emplace_back(part);
  }
  for (size_t i = 0; i + 1 < parts.size(); ++i) parts[i] += kSeparator;
  return parts;
}

}  // namespace

absl::StatusOr<BytePairEncoding> BytePairEncoding::Parse(std::string_view text,
                                                         std::string_view where) {
  BytePairEncoding bpe;
  bpe.has_end_symbol_ = true;
  text = text.substr(0, text.find_last_not_of('\n') + 1);
  for (int number = 1; !text.empty(); ++number) {
    const std::string_view line = Trimmed(NextLine(text));
    const auto fail = [&](std::string_view problem) {
      return absl::InvalidArgumentError(absl::StrCat(std::string(where), ": line ", number, ": \"",
                                                     std::string(line.substr(0, 64)), "\" ",
                                                     std::string(problem)));
    };
    if (number == 1 && line.starts_with(kVersion)) {
      const std::string_view version = line.substr(line.rfind(' ') + 1);
      if (version != "0.1" && version != "0.2") return fail("is not version 0.1 or 0.2");
      bpe.has_end_symbol_ = version == "0.1";
      continue;
    }
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      return fail("is not two symbols");
    }
    bpe.ranks_.emplace(line, number);
  }
  return bpe;
}

absl::StatusOr<BytePairEncoding> BytePairEncoding::Read(const std::filesystem::path& path) {
  const absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const auto bytes = file->bytes();
  return Parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

int BytePairEncoding::RankOf(std::string_view left, std::string_view right) const {
  std::string key;
  key.reserve(left.size() + right.size() + 1);
  key.append(left).append(1, ' ').append(right);
  const auto found = ranks_.find(key);
  return found == ranks_.end() ? -1 : found->second;
}

std::vector<std::string> BytePairEncoding::Split(std::string_view word) const {
  Symbols symbols(word);
  if (symbols.list.size() < 2) return {std::string(word)};
  if (has_end_symbol_) {
    symbols.Add(word.size(), symbols.text.size());
  } else {
    symbols.list.back().end = symbols.text.size();
  }
  MergeAll(symbols,
           [&](std::string_view left, std::string_view right) { return RankOf(left, right); });
  return Parts(symbols);
}

std::string BytePairEncoding::Join(std::string_view text) {
  std::string joined;
  const std::string gap = absl::StrCat(std::string(kSeparator), " ");
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(gap, at), text.size());
    joined.append(text.substr(at, end - at));
    at = end + gap.size();
  }
  if (joined.ends_with(kSeparator)) joined.resize(joined.size() - kSeparator.size());
  return joined;
}

}  // namespace evaserve
