// write_random_model DIR [translation]: writes a tiny model with random weights, always the same.
#include <cstdio>
#include <string_view>

#include "models/eva_translation/testing/random_translation.h"
#include "models/testing/random_model.h"

namespace {

// With all that a checkpoint of fairseq may have: two vocabularies, learned positions.
void WriteTranslation(const char* directory) {
  nlohmann::json json = evaserve::TinyTranslationJson();
  json["decoder"]["positions"] = "learned";
  evaserve::RandomTranslation(json).WriteModel(directory);
}

}  // namespace

int main(int argc, char** argv) {
  const bool is_translation = argc == 3 && std::string_view(argv[2]) == "translation";
  if (argc != 2 && !is_translation) {
    fprintf(stderr, "usage: write_random_model DIR [translation]\n");
    return 2;
  }
  if (is_translation) {
    WriteTranslation(argv[1]);
  } else {
    evaserve::WriteRandomModel(argv[1], evaserve::TinyConfig());
  }
  return 0;
}
