// SPDX-License-Identifier: Apache-2.0
// Incremental decoding: any cut gives the same text, and little is held back.
#include "tokenizer/stream_decoder.h"

#include "base/utf8.h"
#include "vocab_fixture.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::string assemble(const std::vector<std::string>& parts) {
  Utf8Assembler assembler;
  std::string out;
  for (const std::string& part : parts) {
    assembler.push(part, out);
    CHECK(assembler.pending() <= 3);
    CHECK(utf8_valid(out));
  }
  assembler.flush(out);
  return out;
}

}  // namespace

TEST("stream_decoder: every cut of valid and broken bytes gives the same text") {
  const std::vector<std::string> texts = {"a\xC3\xA9\xE2\x82\xAC\xF0\x9F\xA6\x99z",
                                          "\xE2\x96"
                                          "A\x80\xF0\x9F\xA6",
                                          "\xF4\x90\x80\x80\xC0\xAF\xED\xA0\x80",
                                          std::string("\0\xFF\xC3", 3)};
  for (const std::string& text : texts) {
    const std::string whole = assemble({text});
    std::vector<std::string> bytes;
    for (const char c : text) bytes.emplace_back(1, c);
    CHECK_EQ(assemble(bytes), whole);
    for (size_t i = 0; i <= text.size(); ++i)
      for (size_t j = i; j <= text.size(); ++j)
        CHECK_EQ(assemble({text.substr(0, i), text.substr(i, j - i), text.substr(j)}), whole);
  }
  CHECK_EQ(assemble({texts[0]}), texts[0]);
  CHECK_EQ(assemble({"\xE2\x96"
                     "A"}),
           "\xEF\xBF\xBD\xEF\xBF\xBD"
           "A");
}

TEST("stream_decoder: a character comes out with its last byte, not later") {
  Utf8Assembler assembler;
  std::string out;
  assembler.push("\xF0\x9F\xA6", out);
  CHECK_EQ(out, "");
  CHECK_EQ(assembler.pending(), 3u);
  assembler.push("\x99", out);
  CHECK_EQ(out, "\xF0\x9F\xA6\x99");
  // A byte that cannot start or continue a character is replaced at once; it never stalls the stream.
  assembler.push("\xFF", out);
  CHECK_EQ(out, "\xF0\x9F\xA6\x99\xEF\xBF\xBD");
}

TEST("stream_decoder: token by token is the same as all at once") {
  const Json cases = load_json("tokenizers/v3.vectors.json");
  const Tokenizer& tokenizer = published_tokenizer("v0.3");
  for (const Json& item : *cases.find("decode")->array()) {
    StreamDecoder decoder(tokenizer.vocab());
    std::string all;
    for (const int32_t id : json_numbers<int32_t>(*item.find("ids"))) {
      std::string chunk;
      decoder.push(id, chunk);
      CHECK(utf8_valid(chunk));
      all += chunk;
    }
    decoder.flush(all);
    CHECK_EQ(all, *item.find("text")->string());
  }
}

TEST("stream_decoder: the leading space goes once, and stays when a text is continued") {
  const Vocab& vocab = published_tokenizer("v0.1").vocab();
  std::string fresh, continued;
  StreamDecoder strip(vocab), keep(vocab, {.strip_leading_space = false});
  for (const int32_t id : {1, 22557, 1526}) {
    strip.push(id, fresh);
    keep.push(id, continued);
  }
  CHECK_EQ(fresh, "Hello world");
  CHECK_EQ(continued, " Hello world");
}
