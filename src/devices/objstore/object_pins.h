// SPDX-License-Identifier: Apache-2.0
//
// Which data objects somebody reads at this moment. A read pins an object in the same moment in
// which the map says that its blocks are there, and lets it go when it has the bytes; whoever
// deletes objects asks after that moment, and waits for those that are pinned.

#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "base/mutex.h"
#include "devices/objstore/data_object.h"

namespace usbd::objstore {

/// Threads: any, at the same time. Takes no other lock. Lifetime: outlives its pins.
class ObjectPins {
 public:
  /// Keeps one object until it is gone.
  class Pin {
   public:
    Pin() = default;
    Pin(ObjectPins& owner, const ObjectId& id) : owner_(&owner), id_(id) { owner.add(id); }
    Pin(Pin&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)), id_(other.id_) {}
    Pin& operator=(Pin&& other) noexcept {
      std::swap(owner_, other.owner_);
      std::swap(id_, other.id_);
      return *this;
    }
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;
    ~Pin() {
      if (owner_ != nullptr) owner_->remove(id_);
    }

   private:
    ObjectPins* owner_ = nullptr;
    ObjectId id_;
  };

  [[nodiscard]] Pin pin(const ObjectId& id) { return {*this, id}; }

  /// Whether somebody reads it. Who took it out of the map before may delete it if not.
  [[nodiscard]] bool reading(const ObjectId& id) const {
    const MutexLock lock(mutex_);
    return pins_.contains(id);
  }

 private:
  void add(const ObjectId& id) {
    const MutexLock lock(mutex_);
    ++pins_[id];
  }
  void remove(const ObjectId& id) {
    const MutexLock lock(mutex_);
    const auto found = pins_.find(id);
    if (--found->second == 0) pins_.erase(found);
  }

  mutable Mutex mutex_;
  std::map<ObjectId, uint64_t> pins_ USBD_GUARDED_BY(mutex_);
};

}  // namespace usbd::objstore
