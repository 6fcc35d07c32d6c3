// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/merge_order.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/json_fields.h"

namespace maestrale {
namespace {

// Sum of the squared lengths of all pieces, in bytes: what the check of a hostile file may cost. Mistral's is
// below 2^22.
constexpr uint64_t kMostWork = uint64_t{1} << 28;

struct Merge {
  std::string_view left, right;
};

// What is known of a piece from the merges that make it.
struct Range {
  int32_t piece = -1;
  size_t first = 0, last = 0;  // ranks
  size_t count = 0;
};

[[noreturn]] void bad(size_t rank, const std::string& problem) {
  throw Error(ErrorCode::kModelFormat, "merge " + std::to_string(rank) + " of tokenizer.json " + problem);
}

[[noreturn]] void foreign(const std::string& problem) {
  throw Error(ErrorCode::kModelUnsupported,
              "the merges of tokenizer.json are not those of a SentencePiece model: " + problem);
}

Merge read_merge(const Json& json, size_t rank) {
  if (const std::string* text = json.string()) {
    const size_t space = text->find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == text->size() ||
        text->find(' ', space + 1) != std::string::npos)
      bad(rank, "is '" + excerpt(*text) + "', which is not two tokens with a space between");
    return {std::string_view(*text).substr(0, space), std::string_view(*text).substr(space + 1)};
  }
  const Json::Array* pair = json.array();
  if (pair == nullptr || pair->size() != 2 || (*pair)[0].string() == nullptr ||
      (*pair)[1].string() == nullptr)
    bad(rank, "is not a pair of tokens");
  return {*(*pair)[0].string(), *(*pair)[1].string()};
}

size_t characters(std::string_view text) {
  size_t n = 0;
  for (const char byte : text) n += (uint8_t(byte) & 0xc0) != 0x80;
  return n;
}

class MergeOrder {
 public:
  explicit MergeOrder(Vocab& vocab) : vocab_(vocab), ranges_(vocab.pieces.size()) {
    for (int32_t id = 0; id < vocab.size(); ++id) ids_.emplace(vocab.pieces[size_t(id)], id);
  }

  void read(const Json::Array& merges) {
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const Merge merge = read_merge(merges[rank], rank);
      const std::string whole = std::string(merge.left) + std::string(merge.right);
      for (const std::string_view part : {merge.left, merge.right, std::string_view(whole)})
        if (ids_.find(part) == ids_.end()) bad(rank, "needs '" + excerpt(part) + "', which is no token");
      merges_.push_back(merge);
      if (!is_text(merge.left) || !is_text(merge.right) || !is_text(whole)) continue;
      Range& range = ranges_[size_t(ids_.find(whole)->second)];
      if (range.count++ == 0) range.first = rank;
      range.piece = ids_.find(whole)->second;
      range.last = rank;
    }
  }

  // Every way to make a piece must be in the list: SentencePiece takes any.
  void check_complete() const {
    uint64_t work = 0;
    for (int32_t id = 0; id < vocab_.size(); ++id) {
      const std::string_view piece = vocab_.pieces[size_t(id)];
      if (!is_text(piece)) continue;
      work += uint64_t(piece.size()) * piece.size();
      if (work > kMostWork) foreign("its tokens are longer than those of any published one");
      size_t splits = 0;
      for (size_t at = 1; at < piece.size(); ++at) {
        if ((uint8_t(piece[at]) & 0xc0) == 0x80) continue;
        const std::string_view left = piece.substr(0, at), right = piece.substr(at);
        splits += is_symbol(left) && is_symbol(right);
      }
      if (splits != ranges_[size_t(id)].count)
        foreign("'" + excerpt(piece) + "' can be made of two tokens in " + std::to_string(splits) +
                " ways, of which " + std::to_string(ranges_[size_t(id)].count) + " are listed");
    }
  }

  // Descending scores to groups of pieces whose ranks do not overlap.
  void score() {
    std::vector<Range> ranges;
    for (const Range& range : ranges_)
      if (range.count > 0) ranges.push_back(range);
    std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
    int32_t group = -1;
    for (size_t i = 0; i < ranges.size();) {
      ++group;
      size_t end = i, last = ranges[i].last;
      for (; end < ranges.size() && ranges[end].first <= last; ++end) {
        last = std::max(last, ranges[end].last);
        vocab_.scores[size_t(ranges[end].piece)] = -float(group);
      }
      if (end - i > 1) check_mixed(ranges[i].first, last);
      i = end;
    }
  }

 private:
  bool is_text(std::string_view piece) const {
    const auto found = ids_.find(piece);
    return found != ids_.end() && vocab_.types[size_t(found->second)] == PieceType::kNormal;
  }
  // What merging may have before it: a piece, or a character.
  bool is_symbol(std::string_view text) const { return is_text(text) || characters(text) == 1; }

  void check_mixed(size_t first, size_t last) const {
    const auto lengths = [&](size_t rank) {
      return std::pair(characters(merges_[rank].left), characters(merges_[rank].right));
    };
    for (size_t rank = first; rank < last; ++rank)
      if (lengths(rank) < lengths(rank + 1))
        foreign("merges " + std::to_string(rank) + " and " + std::to_string(rank + 1) +
                " mix pieces that have no equal scores");
  }

  Vocab& vocab_;
  std::unordered_map<std::string_view, int32_t> ids_;
  std::vector<Range> ranges_;  // by piece
  std::vector<Merge> merges_;
};

}  // namespace

void score_by_merges(const Json::Array& merges, Vocab& vocab) {
  MergeOrder order(vocab);
  order.read(merges);
  order.check_complete();
  order.score();
}

}  // namespace maestrale
