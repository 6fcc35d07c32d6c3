// SPDX-License-Identifier: Apache-2.0
// Pages: who holds them, what is reused, what leaves the window, and that none is ever lost.
#include "engine/page_pool.h"

#include <memory>
#include <random>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "engine/memory_budget.h"
#include "engine/page_table.h"

using namespace maestrale;

namespace {

std::vector<int32_t> some_tokens(int64_t n, int32_t salt = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = int32_t(i * 7 + 3) % 101 + salt;
  return tokens;
}

// Computes tokens [from, to) in chunks, as the engine does; returns the most pages held at a time.
int64_t compute(PageTable& table, std::span<const int32_t> tokens, int64_t from, int64_t to, int64_t chunk) {
  int64_t most = 0;
  for (int64_t at = from; at < to; at += chunk) {
    const int64_t end = std::min(at + chunk, to);
    table.extend(end);
    most = std::max(most, int64_t(table.pages().size()));
    table.commit(tokens.first(size_t(end)));
  }
  return most;
}

}  // namespace

TEST("pages: the key is SHA-256") {
  // FIPS 180-4 example: "abc" and the two-block message cannot be fed as whole words, so 64 bytes of
  // 'a', 'b', 'c', 'd' repeated; the digest was computed with coreutils' sha256sum.
  const std::vector<uint32_t> words(16, 0x61626364);
  const std::array<uint32_t, 8> digest = sha256::digest(words);
  CHECK_EQ(digest[0], 0x625b4149u);
  CHECK_EQ(digest[7], 0x5215a209u);
}

TEST("pages: the lowest free id comes first") {
  PagePool pool(4, 0);
  CHECK_EQ(pool.allocate(), 0);
  CHECK_EQ(pool.allocate(), 1);
  CHECK_EQ(pool.allocate(), 2);
  pool.release(1);
  pool.release(0);
  CHECK_EQ(pool.allocate(), 0);
  CHECK_EQ(pool.allocate(), 1);
  CHECK_EQ(pool.allocate(), 3);
  CHECK_THROWS(pool.allocate(), ErrorCode::kInternal);
  pool.check();
}

TEST("pages: a page released twice is reported") {
  PagePool pool(2, 0);
  pool.release(pool.allocate());
  CHECK_THROWS(pool.release(0), ErrorCode::kInternal);
}

TEST("pages: published pages are found again, the oldest is evicted") {
  PagePool pool(3, 2);
  PageKey keys[3];
  for (uint32_t i = 0; i < 3; ++i) {
    keys[i].words[0] = i + 1;
    CHECK_EQ(pool.allocate(), PageId(i));
    pool.publish(PageId(i), keys[i]);
  }
  for (PageId i = 0; i < 3; ++i) pool.release(i);
  CHECK_EQ(pool.stats().cached, 2);
  CHECK_EQ(pool.stats().free, 1);
  CHECK(!pool.contains(keys[0]));
  CHECK_EQ(pool.acquire(keys[1]).value(), 1);
  CHECK_EQ(pool.acquire(keys[1]).value(), 1);  // shared
  CHECK_EQ(pool.stats().used, 1);
  CHECK_EQ(pool.allocate(), 0);
  CHECK_EQ(pool.allocate(), 2);  // evicts keys[2]
  CHECK(!pool.contains(keys[2]));
  pool.release(1);
  CHECK_EQ(pool.stats().used, 3);
  pool.release(1);
  CHECK_EQ(pool.stats().cached, 1);
  pool.check();
}

TEST("pages: a table holds no more than pages_needed") {
  for (const int64_t window : {0, 1, 16, 63, 64, 65, 200})
    for (const int64_t chunk : {1, 7, 64, 100})
      for (const int64_t length : {1, 64, 65, 500}) {
        PagePool pool(100, 0);
        const std::vector<int32_t> tokens = some_tokens(length);
        PageTable table(pool, window);
        const int64_t most = compute(table, tokens, 0, length, chunk);
        CHECK(most <= pages_needed(length, window, chunk));
        table.clear();
        CHECK_EQ(pool.stats().free, 100);
        pool.check();
      }
  CHECK_EQ(pages_needed(1'000'000, 4096, 512), 73);
  CHECK_EQ(pages_needed(100, 4096, 512), 2);
}

TEST("pages: exactly what no later query sees is let go") {
  PagePool pool(20, 0);
  const std::vector<int32_t> tokens = some_tokens(300);
  PageTable table(pool, 100);
  compute(table, tokens, 0, 163, 163);
  CHECK_EQ(table.first_page(), 1);  // the query at 163 sees 64 and later
  table.extend(164);
  table.commit(std::span(tokens).first(164));
  CHECK_EQ(table.first_page(), 1);
  compute(table, tokens, 164, 227, 63);
  CHECK_EQ(table.first_page(), 2);  // the query at 227 sees 128 and later
}

TEST("pages: one position before the border nothing is let go") {
  PagePool pool(20, 0);
  const std::vector<int32_t> tokens = some_tokens(300);
  PageTable table(pool, 100);
  compute(table, tokens, 0, 162, 162);
  CHECK_EQ(table.first_page(), 0);  // the query at 162 sees 63
}

TEST("pages: full attention resumes after the common prefix, never at the last token") {
  PagePool pool(40, 40);
  const std::vector<int32_t> tokens = some_tokens(320);
  {
    PageTable first(pool, 0);
    CHECK_EQ(first.resume(tokens), 0);
    compute(first, tokens, 0, 320, 64);
  }
  CHECK_EQ(pool.stats().cached, 5);
  {
    PageTable same(pool, 0);
    CHECK_EQ(same.resume(tokens), 256);
    CHECK_EQ(int64_t(same.pages().size()), 4);
  }
  std::vector<int32_t> other = tokens;
  other[130] += 1;
  {
    PageTable branch(pool, 0);
    CHECK_EQ(branch.resume(other), 128);
    compute(branch, other, 128, 320, 64);
  }
  CHECK_EQ(pool.stats().cached, 8);
  pool.check();
}

TEST("pages: with a window only the window's own pages are needed") {
  const std::vector<int32_t> tokens = some_tokens(640);
  PagePool pool(40, 3);
  {
    PageTable first(pool, 100);
    first.resume(tokens);
    compute(first, tokens, 0, 640, 64);
  }
  // Of the ten pages three stay: the last ones that were let go.
  PageTable again(pool, 100);
  const int64_t resumed = again.resume(tokens);
  CHECK_EQ(resumed, 576);
  CHECK_EQ(again.first_page(), 7);  // the query at 576 sees 477 and later
  compute(again, tokens, 576, 640, 64);
  pool.check();
}

TEST("pages: what was not committed is never reused") {
  PagePool pool(10, 10);
  const std::vector<int32_t> tokens = some_tokens(200);
  {
    PageTable cancelled(pool, 0);
    cancelled.extend(200);
    cancelled.commit(std::span(tokens).first(70));
  }
  PageTable next(pool, 0);
  CHECK_EQ(next.resume(tokens), 64);
}

TEST("pages: nothing is lost in a random life") {
  std::mt19937 random(1);
  PagePool pool(64, 16);
  const int64_t window = 150;
  struct Life {
    std::vector<int32_t> tokens;
    std::unique_ptr<PageTable> table;
    int64_t computed;
  };
  std::vector<Life> lives;
  for (int i = 0; i < 2000; ++i) {
    if (lives.size() < 6 && random() % 4 == 0) {
      Life life{some_tokens(int64_t(random() % 600 + 1), int32_t(random() % 3)),
                std::make_unique<PageTable>(pool, window), 0};
      life.computed = life.table->resume(life.tokens);
      lives.push_back(std::move(life));
    } else if (!lives.empty()) {
      Life& life = lives[random() % lives.size()];
      const int64_t end =
          std::min<int64_t>(life.computed + int64_t(random() % 90), int64_t(life.tokens.size()));
      life.table->extend(end);
      life.table->commit(std::span(life.tokens).first(size_t(end)));
      life.computed = end;
      if (end == int64_t(life.tokens.size()) || random() % 20 == 0)
        lives.erase(lives.begin() + (&life - lives.data()));
    }
    pool.check();
  }
  lives.clear();
  CHECK_EQ(pool.stats().used, 0);
}

TEST("pages: the cache gets 80 % of what is left, or less") {
  CHECK_EQ(kv_pages_within(1000, 100, 3, 2), 6);
  CHECK_EQ(kv_pages_within(1000, 100, 30, 2), 8);
  CHECK_THROWS(kv_pages_within(1000, 1001, 30, 2), ErrorCode::kOutOfMemory);
  CHECK(available_memory() > (uint64_t(1) << 20));
}
