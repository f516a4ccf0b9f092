// write_random_model DIR: writes a tiny model with random weights, always the same.
#include <cstdio>

#include "models/testing/random_model.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: write_random_model DIR\n");
    return 2;
  }
  evaserve::WriteRandomModel(argv[1], evaserve::TinyConfig());
  return 0;
}
