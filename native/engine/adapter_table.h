// SPDX-License-Identifier: Apache-2.0
// The adapters of one engine by name, and how many requests use each. An adapter that is being unloaded
// takes no new ones and leaves when the last one has ended. Safe to use from any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "model/adapter.h"

namespace maestrale {

// What a user is told about a loaded adapter.
struct AdapterFacts {
  std::string name, path;
  float scale = 1.0f;
  int64_t rank = 0;         // the highest of its matrices
  uint64_t parameters = 0;  // values in its file
  uint64_t bytes = 0;       // of memory
  int64_t requests = 0;     // that have not ended
};

class AdapterTable {
  struct Entry {
    AdapterFacts facts;
    uint64_t id = 0;
    bool leaving = false;
    std::unique_ptr<const Adapter> adapter;
  };

 public:
  // Keeps an adapter in memory. Let go of by reset() or with the object; the table must still be there.
  class Use {
   public:
    Use() = default;
    Use(AdapterTable& table, std::shared_ptr<Entry> entry) : table_(&table), entry_(std::move(entry)) {}
    Use(Use&& other) noexcept = default;
    Use& operator=(Use&& other) noexcept {
      reset();
      table_ = other.table_;
      entry_ = std::move(other.entry_);
      return *this;
    }
    ~Use() { reset(); }

    void reset();
    const Adapter* get() const { return entry_ ? entry_->adapter.get() : nullptr; }
    // Never given twice, also when a name is: whoever remembers it means this very adapter. 0: none.
    uint64_t id() const { return entry_ ? entry_->id : 0; }

   private:
    AdapterTable* table_ = nullptr;
    std::shared_ptr<Entry> entry_;
  };

  // Throws Error{kAdapter} when the name is taken.
  void check_free(const std::string& name) const;
  AdapterFacts add(std::string name, std::string path, float scale, std::unique_ptr<const Adapter> adapter);
  // Throws Error{kAdapter} when there is no such adapter or it is being unloaded.
  Use use(const std::string& name);
  // Waits for the requests that use it and hands it out. Throws as use() does, Error{kDisposed} when stop()
  // ends the waiting.
  std::unique_ptr<const Adapter> remove(const std::string& name);
  std::vector<AdapterFacts> list() const;  // in the order of their names

  // Wakes those who wait in remove().
  void stop();

 private:
  std::shared_ptr<Entry> find_locked(const std::string& name) const;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::shared_ptr<Entry>> entries_;
  uint64_t last_id_ = 0;
  bool stopped_ = false;
};

}  // namespace maestrale
