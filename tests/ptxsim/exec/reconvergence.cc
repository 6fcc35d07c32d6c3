// SPDX-License-Identifier: Apache-2.0
// Where diverged lanes meet again: the immediate post-dominator of the branch, found on the control
// flow graph as in Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm" (2001), with all
// edges reversed. A branch whose sides only meet at the end of the function gets -1.
#include <algorithm>

#include "exec/decoder.h"

namespace maestrale::ptxsim {
namespace {

struct Block {
  int begin, end;  // ops, relative to the function
  std::vector<int> successors;
};

bool ends_block(const Op& op) {
  return op.flow == Flow::kBranch || op.flow == Flow::kExit || op.flow == Flow::kReturn;
}

std::vector<Block> split(const std::vector<Op>& ops, int begin, int end, std::vector<int>& block_of) {
  std::vector<bool> leader(size_t(end - begin), false);
  leader[0] = true;
  for (int i = begin; i < end; ++i) {
    if (ops[size_t(i)].flow == Flow::kBranch) leader[size_t(ops[size_t(i)].target - begin)] = true;
    if (ends_block(ops[size_t(i)]) && i + 1 < end) leader[size_t(i + 1 - begin)] = true;
  }
  std::vector<Block> blocks;
  block_of.assign(size_t(end - begin), 0);
  for (int i = begin; i < end; ++i) {
    if (leader[size_t(i - begin)]) blocks.push_back({i, i, {}});
    blocks.back().end = i + 1;
    block_of[size_t(i - begin)] = int(blocks.size()) - 1;
  }
  return blocks;
}

}  // namespace

void find_reconvergence(std::vector<Op>& ops, int begin, int end) {
  std::vector<int> block_of;
  std::vector<Block> blocks = split(ops, begin, end, block_of);
  const int n = int(blocks.size());  // block n is the virtual exit
  std::vector<std::vector<int>> predecessors(size_t(n + 1));
  for (int b = 0; b < n; ++b) {
    const Op& last = ops[size_t(blocks[size_t(b)].end - 1)];
    auto& out = blocks[size_t(b)].successors;
    if (last.flow == Flow::kBranch) out.push_back(block_of[size_t(last.target - begin)]);
    if (last.flow == Flow::kExit || last.flow == Flow::kReturn) out.push_back(n);
    if (!ends_block(last) || last.guard != kNoSlot) out.push_back(b + 1);
    for (const int s : out) predecessors[size_t(s)].push_back(b);
  }

  // Depth-first order from the exit over reversed edges. Blocks that never reach the exit (endless
  // loops) keep number -1 and reconverge nowhere.
  std::vector<int> order, number(size_t(n + 1), -1);
  std::vector<std::pair<int, size_t>> stack = {{n, 0}};
  std::vector<bool> seen(size_t(n + 1), false);
  seen[size_t(n)] = true;
  while (!stack.empty()) {
    auto& [b, next] = stack.back();
    if (next < predecessors[size_t(b)].size()) {
      const int p = predecessors[size_t(b)][next++];
      if (!seen[size_t(p)]) seen[size_t(p)] = true, stack.push_back({p, 0});
    } else {
      number[size_t(b)] = int(order.size());
      order.push_back(b);
      stack.pop_back();
    }
  }
  std::vector<int> ipdom(size_t(n + 1), -1);
  ipdom[size_t(n)] = n;
  const auto meet = [&](int a, int b) {
    while (a != b) {
      while (number[size_t(a)] < number[size_t(b)]) a = ipdom[size_t(a)];
      while (number[size_t(b)] < number[size_t(a)]) b = ipdom[size_t(b)];
    }
    return a;
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (auto it = order.rbegin(); it != order.rend(); ++it) {
      if (*it == n) continue;
      int common = -1;
      for (const int s : blocks[size_t(*it)].successors)
        if (ipdom[size_t(s)] >= 0) common = common < 0 ? s : meet(common, s);
      if (common != ipdom[size_t(*it)]) ipdom[size_t(*it)] = common, changed = true;
    }
  }
  for (const Block& block : blocks) {
    Op& last = ops[size_t(block.end - 1)];
    if (last.flow != Flow::kBranch) continue;
    const int p = ipdom[size_t(block_of[size_t(block.begin - begin)])];
    last.reconverge = p < 0 || p == n ? -1 : blocks[size_t(p)].begin;
  }
}

}  // namespace maestrale::ptxsim
