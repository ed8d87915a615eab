// SPDX-License-Identifier: Apache-2.0
//
// The only file that includes toml++, whose parser throws: the exception ends here.

#include "daemon/config_file.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <toml++/toml.h>

#include "daemon/text_file.h"

namespace usbd::daemon {
namespace {

/// Reads the tables of one file.
class ConfigReader {
 public:
  ConfigReader(const std::string& source, FlagValues& values) : source_(source), values_(values) {}

  Result<void> read(const toml::table& root) {
    const toml::table* volume = nullptr;
    if (const toml::node* const node = root.get("volume")) {
      USBD_TRY(volume, only_volume(*node));
    }
    for (const auto& [key, node] : root) {
      if (key == "volume") continue;
      // Checked even where the volume's own value wins.
      USBD_TRY_VOID(
          setting(std::string(key.str()), node, volume != nullptr && volume->contains(key)));
    }
    if (volume == nullptr) return {};
    for (const auto& [key, node] : *volume) {
      USBD_TRY_VOID(setting(std::string(key.str()), node, false));
    }
    return {};
  }

 private:
  [[nodiscard]] std::string place(const toml::node& node) const {
    return fmt::format("{} line {}", source_, node.source().begin.line);
  }

  Result<const toml::table*> only_volume(const toml::node& node) const {
    const toml::array* const volumes = node.as_array();
    if (volumes == nullptr || !volumes->is_array_of_tables() || volumes->empty()) {
      return Error(Errc::kInvalid,
                   fmt::format("{}: volumes are written as [[volume]] tables", place(node)));
    }
    if (volumes->size() > 1) {
      return Error(Errc::kInvalid,
                   fmt::format("{}: {} volumes are described, and this build serves one in a "
                               "daemon: keep one [[volume]] in the file, and start a daemon with a "
                               "file of its own for each",
                               place((*volumes)[1]), volumes->size()));
    }
    return (*volumes)[0].as_table();
  }

  Result<void> setting(const std::string& key, const toml::node& node, bool only_check) {
    const FlagSpec* const spec = values_.find(key);
    if (spec == nullptr || key == "help" || key == "version" || key == "config") {
      return Error(
          Errc::kInvalid,
          fmt::format("{}: \"{}\" is not a setting (-help shows every flag)", place(node), key));
    }
    const toml::array* const list = spec->repeatable ? node.as_array() : nullptr;
    if (list == nullptr) return value(*spec, node, only_check);
    for (const toml::node& element : *list) USBD_TRY_VOID(value(*spec, element, only_check));
    return {};
  }

  Result<void> value(const FlagSpec& spec, const toml::node& node, bool only_check) {
    const Result<std::string> text = text_of(spec, node);
    if (!text) {
      return Error(Errc::kInvalid,
                   fmt::format("{}: {}: {}", place(node), spec.name, text.error().context()));
    }
    const Place where{Origin::kFile, fmt::format("{}: {}", place(node), spec.name)};
    if (!only_check) return values_.set(spec, *text, where);
    FlagValues scratch(values_.specs());
    return scratch.set(spec, *text, where);
  }

  static Result<std::string> text_of(const FlagSpec& spec, const toml::node& node) {
    if (const auto* const text = node.as_string()) return text->get();
    if (const auto* const number = node.as_integer()) return std::to_string(number->get());
    if (const auto* const flag = node.as_boolean()) return flag->get() ? "true" : "false";
    if (const auto* const ratio = node.as_floating_point()) return fmt::format("{}", ratio->get());
    if (spec.name == "objstore-cfg" && node.is_table()) return json_of(*node.as_table());
    return Error(Errc::kInvalid, spec.repeatable
                                     ? "the value is to be a string or an array of strings"
                                     : "the value is to be a string, a number or a boolean");
  }

  static Result<std::string> json_of(const toml::table& table) {
    nlohmann::json object = nlohmann::json::object();
    for (const auto& [key, node] : table) {
      const auto* const text = node.as_string();
      if (text == nullptr) {
        return Error(Errc::kInvalid,
                     fmt::format("the value of key \"{}\" is to be a string", key.str()));
      }
      object[std::string(key.str())] = text->get();
    }
    return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }

  const std::string& source_;
  FlagValues& values_;
};

}  // namespace

Result<void> parse_config(std::string_view text, const std::string& source, FlagValues& values) {
  toml::table root;
  try {
    root = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    return Error(Errc::kInvalid, fmt::format("{} line {} is not TOML: {}", source,
                                             error.source().begin.line, error.description()));
  }
  return ConfigReader(source, values).read(root);
}

Result<void> read_config_file(const std::string& path, FlagValues& values) {
  const Result<std::string> text = read_text_file(path);
  if (!text) return Error(text.error().code(), "-config: " + text.error().context());
  return parse_config(*text, path, values);
}

}  // namespace usbd::daemon
