#pragma once

namespace evaserve {

// Of the norm behind the learned map of a chunk's mean (landmarks.h), on the host and on a device.
inline constexpr float kAdaptiveNormEps = 1e-5f;

}  // namespace evaserve
