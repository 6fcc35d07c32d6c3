// SPDX-License-Identifier: Apache-2.0
#include "engine/adapter_table.h"

#include <utility>

#include "base/error.h"

namespace maestrale {

void AdapterTable::Use::reset() {
  if (!entry_) return;
  {
    const std::lock_guard lock(table_->mutex_);
    --entry_->facts.requests;
  }
  table_->changed_.notify_all();
  entry_.reset();
}

void AdapterTable::check_free(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end()) return;
  throw Error(ErrorCode::kAdapter, "an adapter named '" + name + "' is " +
                                       (found->second->leaving ? "still being unloaded" : "loaded already"));
}

AdapterFacts AdapterTable::add(std::string name, std::string path, float scale,
                               std::unique_ptr<const Adapter> adapter) {
  check_free(name);
  const auto entry = std::make_shared<Entry>();
  entry->facts = {name, std::move(path), scale, adapter->rank, adapter->parameters, adapter->bytes(), 0};
  entry->adapter = std::move(adapter);
  const std::lock_guard lock(mutex_);
  entry->id = ++last_id_;
  if (!entries_.emplace(name, entry).second)
    throw Error(ErrorCode::kAdapter, "an adapter named '" + name + "' was loaded meanwhile");
  return entry->facts;
}

std::shared_ptr<AdapterTable::Entry> AdapterTable::find_locked(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    std::string loaded;
    for (const auto& [other, entry] : entries_) loaded += (loaded.empty() ? "" : ", ") + ("'" + other + "'");
    throw Error(ErrorCode::kAdapter, "no adapter named '" + name + "' is loaded; loaded are " +
                                         (loaded.empty() ? "none" : loaded));
  }
  if (found->second->leaving)
    throw Error(ErrorCode::kAdapter, "the adapter '" + name + "' is being unloaded");
  return found->second;
}

AdapterTable::Use AdapterTable::use(const std::string& name) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<Entry> entry = find_locked(name);
  ++entry->facts.requests;
  return Use(*this, std::move(entry));
}

std::unique_ptr<const Adapter> AdapterTable::remove(const std::string& name) {
  std::shared_ptr<Entry> entry;
  std::unique_lock lock(mutex_);
  entry = find_locked(name);
  entry->leaving = true;
  changed_.wait(lock, [&] { return stopped_ || entry->facts.requests == 0; });
  if (entry->facts.requests > 0) throw Error(ErrorCode::kDisposed, "the model has been disposed");
  entries_.erase(name);
  return std::move(entry->adapter);
}

std::vector<AdapterFacts> AdapterTable::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<AdapterFacts> list;
  for (const auto& [name, entry] : entries_) list.push_back(entry->facts);
  return list;
}

void AdapterTable::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

}  // namespace maestrale
