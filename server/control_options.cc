#include "server/control_options.h"

#include <algorithm>
#include <thread>

namespace evaserve {
namespace {

ServingSettings SettingsOf(const Config& config) {
  ServingSettings settings;
  settings.engine.max_batch_tokens = config.max_batch_tokens;
  settings.engine.max_running = config.max_running;
  settings.engine.waiting.max_waiting = config.max_waiting;
  settings.engine.waiting.max_waiting_tokens = config.max_waiting_tokens;
  settings.engine.waiting.max_waiting_bytes = config.max_waiting_mb << 20;
  settings.engine.max_prompt_tokens = config.max_prompt_tokens;
  settings.engine.max_new_tokens = config.max_new_tokens;
  settings.engine.max_queue_time = config.max_queue_time;
  settings.engine.max_request_time = config.max_request_time;
  settings.engine.max_piece_wait = config.max_piece_wait;
  settings.engine.waiting.overload_status = config.overload_status;
  settings.load.device = config.device;
  settings.load.dtype = config.dtype;
  settings.load.packages.are_allowed = config.allow_packages;
  settings.load.packages.torch_library = config.torch_library;
  settings.load.state_bytes = config.state_memory_mb << 20;
  const int num_cores = static_cast<int>(std::thread::hardware_concurrency());
  settings.num_threads = config.threads > 0 ? config.threads : std::max(num_cores, 1);
  settings.warmup_tokens = config.warmup_tokens;
  return settings;
}

}  // namespace

RepositoryControl::Options ControlOptions(const Config& config) {
  RepositoryControl::Options options{.mode = config.model_control_mode,
                                     .poll_interval = config.repository_poll,
                                     .load_at_start = config.load_models,
                                     .defaults = SettingsOf(config)};
  if (!config.model_repository.empty()) {
    options.directory.emplace(config.model_repository, options.defaults);
  }
  for (const ModelSpec& model : config.models) options.fixed[model.name] = model.directory;
  return options;
}

}  // namespace evaserve
