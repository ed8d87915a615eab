// SPDX-License-Identifier: Apache-2.0
//
// `volume check`: says of each finding what it costs as soon as it is known.

#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "ctl/objstore/objstore_inspector.h"
#include "devices/objstore/names.h"
#include "devices/objstore/snapshots.h"

namespace usbd::ctl {
namespace {

using Json = nlohmann::ordered_json;
using objstore::CheckFinding;

/// Ranges of one finding that people are shown.
constexpr size_t kRangesShown = 16;

Json to_json(const CheckFinding& finding, uint64_t snapshot) {
  Json json;
  if (snapshot > 0) json["snapshot"] = snapshot;
  json["object"] = finding.object;
  json["what"] = finding.what;
  json["damaged_bytes"] = finding.bytes;
  json["exact"] = finding.exact;
  json["ranges"] = Json::array();
  for (const ByteRange& range : finding.ranges) {
    json["ranges"].push_back(Json{{"offset", range.offset}, {"length", range.length}});
  }
  json["ranges_omitted"] = finding.ranges_omitted;
  return json;
}

std::string to_text(const CheckFinding& finding, uint64_t snapshot) {
  const std::string whose = snapshot > 0 ? fmt::format("of snapshot {}, ", snapshot) : "";
  std::string text = fmt::format("DAMAGED {}{}: {}\n", whose, finding.object, finding.what);
  if (finding.bytes == 0 && !finding.exact) {
    return text + "    which bytes of the volume it costs is not known\n";
  }
  if (finding.bytes == 0) return text + "    no byte of the volume is lost by it\n";
  text += fmt::format("    {} {} of the volume ({} bytes), at\n",
                      finding.exact ? "costs" : "not all for certain, costs",
                      rough_size(finding.bytes), finding.bytes);
  size_t shown = 0;
  for (const ByteRange& range : finding.ranges) {
    if (++shown > kRangesShown) break;
    text += fmt::format("    {} .. {} ({} bytes)\n", range.offset, range.end() - 1, range.length);
  }
  const uint64_t ranges = finding.ranges.size() + finding.ranges_omitted;
  if (ranges > kRangesShown) {
    text += fmt::format("    and {} more ranges\n", ranges - kRangesShown);
  }
  return text;
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

/// Prints findings one by one; as JSON they are the elements of a list in a document that begin()
/// and end() write around them.
class ObjstoreInspector::FindingPrinter {
 public:
  explicit FindingPrinter(Console& console) : console_(console) {}

  void begin(const std::string& volume, const std::string& store) {
    if (!console_.json()) return;
    console_.print(fmt::format("{{\n\"volume\": {},\n\"store\": {},\n\"damage\": [",
                               dump(Json(volume)), dump(Json(store))));
  }

  /// `snapshot`: whose it is; 0: the volume's.
  void print(const CheckFinding& finding, uint64_t snapshot = 0) {
    if (console_.json()) {
      console_.print(
          fmt::format("{}\n{}", count_ == 0 ? "" : ",", dump(to_json(finding, snapshot))));
    } else {
      console_.print(to_text(finding, snapshot));
    }
    ++count_;
  }

  /// What was looked at on this host.
  void set_local(Json local) { local_ = std::move(local); }
  void note(std::string text) { notes_.push_back(std::move(text)); }
  void count_snapshot() { ++snapshots_; }

  void end(const Result<objstore::CheckTotals>& checked) {
    const objstore::CheckTotals totals = checked ? *checked : objstore::CheckTotals();
    const char* const verdict = !checked ? "unfinished" : count_ > 0 ? "damaged" : "sound";
    if (console_.json()) {
      const Json all{{"head_version", totals.head_version},
                     {"data_objects", totals.data_objects},
                     {"map_pages", totals.map_pages},
                     {"frames", totals.frames},
                     {"read_bytes", totals.bytes},
                     {"mapped_bytes", totals.mapped_bytes},
                     {"rounds", totals.rounds},
                     {"snapshots", snapshots_},
                     {"damage", count_}};
      const Json error = checked ? Json(nullptr) : Json(checked.error().message());
      console_.print(fmt::format(
          "\n],\n\"notes\": {},\n\"local\": {},\n\"totals\": {},\n\"error\": {},\n"
          "\"verdict\": {}\n}}\n",
          dump(Json(notes_)), dump(local_), dump(all), dump(error), dump(Json(verdict))));
      return;
    }
    for (const std::string& one : notes_) console_.print("note: " + one + "\n");
    if (!checked) return;
    console_.print(fmt::format(
        "{}: {} data objects, {} frames, {} pages of the map; {} read, {} of the volume mapped, at "
        "version {} of the head{}\n",
        verdict, totals.data_objects, totals.frames, totals.map_pages, rough_size(totals.bytes),
        rough_size(totals.mapped_bytes), totals.head_version,
        snapshots_ > 0 ? fmt::format("; {} snapshots", snapshots_) : ""));
  }

  [[nodiscard]] uint64_t count() const { return count_; }

 private:
  Console& console_;
  uint64_t count_ = 0;
  uint64_t snapshots_ = 0;
  Json local_ = nullptr;
  std::vector<std::string> notes_;
};

/// Journals that belong to the head count as damage; others only get a note.
Task<Result<void>> ObjstoreInspector::check_local(FindingPrinter& printer) {
  const Result<LocalFiles> found = co_await local_files(true);
  printer.set_local(local_json(found));
  if (!found) co_return found.error();
  for (const LocalJournal& one : found->journals) {
    const bool counts = one.state == "current" || one.state == "unreadable";
    if (!one.held_by.empty()) {
      printer.note(fmt::format("{} is in use by {}, which is writing to it: it was not checked",
                               one.file, one.held_by));
    } else if (!one.damage.empty() && counts) {
      CheckFinding finding{.object = one.file, .what = one.damage};
      finding.exact = one.lost_is_complete;
      objstore::add_cost(finding, one.lost, head_->size);
      printer.print(finding);
    } else if (!one.damage.empty()) {
      printer.note(fmt::format("{} ({}): {}", one.file, one.state, one.damage));
    }
  }
  co_return Result<void>();
}

/// Each as a volume of its own; what the volume or another one proved is not read again.
Task<Result<void>> ObjstoreInspector::check_snapshots(FindingPrinter& printer,
                                                      objstore::CheckOptions options) {
  const Result<std::vector<objstore::SnapshotRef>> all =
      co_await objstore::read_snapshots(place(), *head_);
  // What cannot be read of the root was said of the volume.
  if (!all) co_return Result<void>();
  for (const objstore::SnapshotRef& one : *all) {
    options.snapshot = one.number;
    options.found = [&printer, &one](const CheckFinding& finding) {
      printer.print(finding, one.number);
    };
    const Result<objstore::CheckTotals> checked = co_await objstore::check_volume(
        place(), objstore::head_of_snapshot(*head_, one), runtime_.blocking_pool(), options);
    printer.count_snapshot();
    if (checked) continue;
    if (!checked.error().is(Errc::kNotFound)) co_return checked.error();
    printer.note(checked.error().context());
  }
  co_return Result<void>();
}

Task<Result<Verdict>> ObjstoreInspector::check(Console& console) {
  FindingPrinter printer(console);
  if (!head_damage_ && !can_open() && key_state_ != KeyState::kForged) {
    co_return Error(Errc::kAccess, key_problem_ + ": check needs the key of the volume");
  }
  printer.begin(settings_.name, store_->name());
  Result<objstore::CheckTotals> checked = objstore::CheckTotals();
  if (head_damage_ || key_state_ == KeyState::kForged) {
    // Without it nothing says what belongs to the volume.
    CheckFinding finding{.object = objstore::head_name(settings_.name)};
    finding.what = (head_damage_ ? head_damage_->context() : key_problem_) +
                   ": the volume cannot be opened, and nothing else was checked";
    finding.exact = false;
    if (head_) finding.bytes = head_->size;
    if (head_) finding.ranges.emplace_back(0, head_->size);
    printer.print(finding);
  } else {
    objstore::CheckOptions options;
    options.found = [&printer](const CheckFinding& finding) { printer.print(finding); };
    options.progress = [&console](const objstore::CheckProgress& at) {
      console.progress([&at] {
        return fmt::format("{} of {} objects, {} of {} read", at.objects, at.objects_total,
                           rough_size(at.bytes), rough_size(at.bytes_total));
      });
    };
    std::set<objstore::ObjectId> proven;
    options.proven = &proven;
    checked = co_await objstore::check_volume(place(), *head_, runtime_.blocking_pool(), options);
    if (checked) {
      const Result<void> snapshots = co_await check_snapshots(printer, options);
      if (!snapshots) checked = snapshots.error();
    }
    const Result<void> local = co_await check_local(printer);
    if (checked && !local) checked = local.error();
  }
  printer.end(checked);
  if (!checked) co_return checked.error();
  co_return printer.count() > 0 ? Verdict::kDamaged : Verdict::kSound;
}

}  // namespace usbd::ctl
