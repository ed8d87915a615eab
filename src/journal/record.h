// SPDX-License-Identifier: Apache-2.0
//
// A record of the journal in memory, from the first entry that is put in it until its space in the
// ring is used again, and Place, which is where one entry's payload is.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "journal/format.h"
#include "journal/record_memory.h"
#include "journal/sealer.h"

namespace usbd::journal {

/// Everything but the constants is guarded by the journal's mutex.
struct Record {
  /// Its place among all records with data of this opening; set when it is begun.
  uint64_t ordinal = 0;
  /// Until they are in a header.
  std::vector<Entry> entries;
  uint32_t payload_blocks = 0;
  /// The payload as the owner gave it, until the record is in the ring and not kept; the header's
  /// blocks stand before it. Shared with those who are reading it.
  std::shared_ptr<RecordBuffer> plain;
  /// It is in the ring, and `plain` is kept beyond that.
  bool kept = false;

  /// Of its last entry; of a record without entries: of the one before it.
  uint64_t last_number = 0;

  // From when it is given its place in the ring:
  /// Units: bytes, counted from the start of the first lap.
  uint64_t position = 0;
  /// Of header and payload. Units: bytes.
  uint64_t bytes = 0;
  uint64_t jseq = 0;
  uint64_t session = 0;
  uint32_t header_blocks = 0;
  uint32_t crc = 0;
  std::vector<Seal> seals;
  std::shared_ptr<const Sealer> sealer;
  bool written = false;
  /// Reads from the ring that are under way: until they end the space is not used again.
  unsigned readers = 0;
};

/// Where the payload of an entry begins.
struct Place {
  std::shared_ptr<Record> record;
  /// Units: blocks of the record's payload.
  uint32_t block = 0;
};

}  // namespace usbd::journal
