#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "server/config.h"

namespace evaserve {

// How the values of a Config look that CLI11 has no type for.
struct TextValues {
  std::vector<std::string> models;
  std::string model_repository;
  std::string model_control_mode = "none";
  int64_t repository_poll_s = 15;
  std::string torch_library;
  int64_t max_connection_age_s = 0;
  int64_t max_connection_age_grace_s = 0;
  double max_queue_s = 0;
  double max_request_s = 0;
  double max_piece_wait_s = 60;
  std::string overload_status = "resource-exhausted";
  double step_timeout_s = 60;
  double drain_pause_s = 0;
  std::string tls_cert;
  std::string tls_key;
  std::string tls_client_ca;
  std::string auth_tokens;
  int64_t credentials_reload_s = 10;
  std::string device = "auto";
  std::string dtype = "auto";
  int64_t drain_timeout_s = 30;
  std::string log_level = "info";
  std::string log_format = "text";
};

// Declares every option, with its environment variable, its default, what it does and what it
// takes. Their values go into `config` and `text`, which must outlive `app`.
void DeclareOptions(CLI::App& app, Config& config, TextValues& text);

}  // namespace evaserve
