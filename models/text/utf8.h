#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace evaserve {

// The bytes of the character that `text` begins with, which is not empty; nullopt if that is not
// UTF-8 (too long a form, a surrogate or beyond U+10FFFF included).
std::optional<size_t> CharacterBytes(std::string_view text);

bool IsUtf8(std::string_view text);

}  // namespace evaserve
