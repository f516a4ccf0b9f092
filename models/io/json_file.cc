#include "models/io/json_file.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/io/mapped_file.h"

namespace evaserve {
namespace {

using Json = nlohmann::json;

// Of the byte with this number, from 1 to beyond the end of the text.
std::string PlaceOf(size_t byte, std::string_view text) {
  const std::string_view before = text.substr(0, byte == 0 ? 0 : byte - 1);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  return absl::StrCat("line ", line, ", column ", before.size() - (before.rfind('\n') + 1) + 1);
}

// Reads a text without keeping it, and says what is wrong with it. Takes time in proportion to it,
// which the library's own callbacks do not.
class Inspector : public nlohmann::json_sax<Json> {
 public:
  explicit Inspector(std::string_view text) : text_(text) {}

  // Empty: nothing.
  const std::string& error() const { return error_; }

  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(number_integer_t) override { return Value(); }
  bool number_unsigned(number_unsigned_t) override { return Value(); }
  bool number_float(number_float_t, const string_t&) override { return Value(); }
  bool string(string_t&) override { return Value(); }
  bool binary(binary_t&) override { return Value(); }
  bool start_object(size_t) override { return Open(); }
  bool start_array(size_t) override { return depth_ == 0 ? Value() : Open(); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (depth_ != 1 || keys_.insert(name).second) return true;
    return Refuse(absl::StrCat(JsonExcerpt(name), " comes twice"));
  }

  bool parse_error(size_t byte, const std::string&, const Json::exception& error) override {
    constexpr int kOutOfRange = 406;
    if (error.id == kOutOfRange) return Refuse("a number is out of range");
    return Refuse(absl::StrCat("not valid JSON at ", PlaceOf(byte, text_)));
  }

 private:
  bool Value() { return depth_ > 0 || Refuse("not a JSON object"); }
  bool Open() {
    return ++depth_ <= kMaxJsonDepth || Refuse(absl::StrCat("nested deeper than ", kMaxJsonDepth));
  }
  bool Close() {
    --depth_;
    return true;
  }
  bool Refuse(std::string error) {
    error_ = std::move(error);
    return false;
  }

  const std::string_view text_;
  int depth_ = 0;
  std::set<std::string> keys_;  // of the object itself
  std::string error_;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view where) {
  Inspector inspector(text);
  if (!Json::sax_parse(text, &inspector)) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(where), ": ", inspector.error()));
  }
  return Json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
}

absl::StatusOr<nlohmann::json> ReadJsonObject(const std::filesystem::path& path) {
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const auto bytes = file->bytes();
  return ParseJsonObject({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                         path.string());
}

std::string JsonExcerpt(const nlohmann::json& value) {
  constexpr size_t kMaxSize = 64;
  std::string text =
      value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxSize) text.replace(kMaxSize, std::string::npos, "...");
  return text;
}

}  // namespace evaserve
