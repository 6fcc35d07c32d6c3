// SPDX-License-Identifier: Apache-2.0
// The small files of a model directory, read as a whole.
#pragma once

#include <optional>
#include <string>

#include "base/json.h"

namespace maestrale {

// DIRECTORY/NAME, nothing when there is no such file. Throws Error{kModelFormat} for one above 256 MiB.
std::optional<std::string> read_text(const std::string& directory, const std::string& name);

// The same as JSON; what the parser objects to is said with the file's name.
std::optional<Json> read_json(const std::string& directory, const std::string& name);

}  // namespace maestrale
