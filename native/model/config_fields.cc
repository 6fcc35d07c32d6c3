// SPDX-License-Identifier: Apache-2.0
#include "model/config_fields.h"

#include <cmath>

namespace maestrale {
namespace {

using namespace config_limits;

void read_heads(const JsonFields& json, const ShapeFields& fields, ModelConfig& config) {
  config.n_heads = json.size(fields.n_heads, kMaxHeads);
  const int64_t otherwise = config.n_kv_heads > 0 ? config.n_kv_heads : config.n_heads;
  config.n_kv_heads = int32_t(json.integer(fields.n_kv_heads, 1, kMaxHeads).value_or(otherwise));
  if (config.n_heads % config.n_kv_heads != 0)
    json.fail(fields.n_kv_heads, "is " + std::to_string(config.n_kv_heads) + ", which does not divide the " +
                                     std::to_string(config.n_heads) + " query heads");
  const std::optional<int64_t> head_dim = json.integer(fields.head_dim, 1, kMaxDim);
  if (!head_dim && config.dim % config.n_heads != 0)
    json.fail(fields.dim, "is " + std::to_string(config.dim) + ", which " + std::to_string(config.n_heads) +
                              " heads do not divide, and '" + fields.head_dim + "' is missing");
  config.head_dim = int32_t(head_dim.value_or(config.dim / config.n_heads));
  if (config.head_dim % int(kHeadDimStep) != 0 || config.head_dim == 0 || config.head_dim > int(kMaxHeadDim))
    json.unsupported(head_dim ? fields.head_dim : fields.dim,
                     "makes heads of " + std::to_string(config.head_dim) + " values, but only multiples of " +
                         std::to_string(kHeadDimStep) + " up to " + std::to_string(kMaxHeadDim) + " run");
}

}  // namespace

void read_shape(const JsonFields& json, const ShapeFields& fields, ModelConfig& config) {
  config.dim = json.size(fields.dim, kMaxDim);
  config.hidden_dim = json.size(fields.hidden_dim, kMaxHiddenDim);
  config.n_layers = json.size(fields.n_layers, kMaxLayers);
  config.vocab_size = json.size(fields.vocab_size, kMaxVocab);
  read_heads(json, fields, config);
  config.norm_eps = float(json.real(fields.norm_eps).value_or(config.norm_eps));
  if (!(config.norm_eps > 0.0f && config.norm_eps < 1.0f))
    json.fail(fields.norm_eps, "is " + decimal(double(config.norm_eps)) + ", but must lie between 0 and 1");
}

double checked_rope_theta(const JsonFields& json, double theta) {
  if (!(std::isfinite(theta) && theta > 0.0))
    json.fail("rope_theta", "is " + decimal(theta) + ", but must be finite and above 0");
  return theta;
}

}  // namespace maestrale
