// SPDX-License-Identifier: Apache-2.0
// What the kernels ask of the machine, counted by the simulated GPU, against bench/results/cuda-kernels.csv:
// a figure that got worse fails. MAESTRALE_WRITE_FIGURES=1 writes the file anew. The counts are those of one
// nvcc; another one's are held to the bounds of the design only.
#include <cstdio>
#include <fstream>
#include <map>
#include <numeric>
#include <optional>
#include <sstream>

#include "check.h"
#include "cuda/adapter_memory.h"
#include "cuda/attention.h"
#include "cuda/cuda_backend.h"
#include "cuda/kv_cache.h"
#include "cuda/logits.h"
#include "cuda/low_rank.h"
#include "cuda_parts.h"
#include "model/gguf_weights.h"
#include "model/quantized_weights.h"
#include "reference.h"

using namespace maestrale;
using namespace maestrale::test;

namespace maestrale::cuda {
extern const char kPtx80[];
}

namespace {

constexpr const char* kHeader =
    "kernel,rows,instructions_per_weight,unique_over_minimum,sectors_over_minimum,bank_conflicts";
constexpr double kUnique = 1.03;  // unique_over_minimum at most

struct Figures {
  double instructions = 0;  // thread instructions a weight
  double unique = 0;        // bytes of different sectors read, over those of weights and activations
  double sectors = 0;       // bytes of sectors asked for, over the same and the results
  double conflicts = 0;     // wavefronts of shared memory, over those without conflicts

  std::string text() const {
    char line[128];
    std::snprintf(line, sizeof line, "%.3f,%.3f,%.3f,%.3f", instructions, unique, sectors, conflicts);
    return line;
  }
};

// The counters of `kernel` since the last reset.
std::map<std::string, double> counters(const std::string& kernel) {
  const std::string report = simulator_report();
  const size_t at = report.find("\"" + kernel + "\":{");
  if (at == report.npos) fail(__FILE__, __LINE__, kernel + " has not run");
  std::map<std::string, double> values;
  std::istringstream fields(report.substr(report.find('{', at) + 1, report.find('}', at) - at));
  for (std::string field; std::getline(fields, field, ',');) {
    const size_t end = field.find('"', 1);
    values[field.substr(1, end - 1)] = std::atof(field.c_str() + end + 2);
  }
  return values;
}

Figures measure(Gpu& gpu, const QuantTraits& traits, const std::string& kernel, int rows) {
  constexpr int64_t kOutputs = 256, kCols = 4096;
  std::mt19937 random(5);
  const bool halves = !is_quantised(traits.type);
  const Bytes stored = halves ? Bytes(size_t(2 * kOutputs * kCols), 0x3c)  // about 0.01 in either type
                              : random_rows(traits.type, kOutputs, kCols, random);
  const Matrix weight = gpu.weights.load_matrix(StoredRows(traits.type, kOutputs, kCols, stored));
  const Tensor in = gpu.upload(random_floats(size_t(rows * kCols), random), kCols);
  const Tensor out = gpu.upload(std::vector<float>(size_t(rows * kOutputs)), kOutputs);
  gpu.device.synchronize();
  simulator<int()>("ptxsim_reset")();
  const Projection projection{&weight, out};
  gpu.products.matmul(rows, in, {&projection, 1});
  gpu.device.synchronize();
  const auto c = counters(kernel);
  const int record = halves                         ? kHalfRecordBytes
                     : traits.items_per_block == 64 ? 2 * kRecordBytes
                                                    : kRecordBytes;
  const double read = double(WeightMemory::matrix_bytes(traits.type, kOutputs, kCols)) +
                      double(rows * units_of(kCols) * record);
  const double written = double(rows * kOutputs * 4);
  const double ideal = c.at("sharedIdealWavefronts");
  return {c.at("threadInstructions") / double(kOutputs * kCols), 32 * c.at("uniqueReadSectors") / read,
          32 * c.at("sectorsRequested") / (read + written), c.at("sharedWavefronts") / ideal};
}

// Of 8 rows of 32,000 logits; instructions are those of a logit.
Figures measure_top_logits(Gpu& gpu) {
  constexpr int64_t kRows = 8, kVocab = 32000;
  std::mt19937 random(5);
  Logits logits(gpu.device, gpu.kernels);
  logits.prepare(kRows);
  const Tensor x = gpu.upload(random_floats(size_t(kRows * kVocab), random), kVocab);
  simulator<int()>("ptxsim_reset")();
  logits.copy(x, std::vector<RowRequest>(kRows));
  gpu.device.synchronize();
  const auto c = counters("top_logits");
  const double read = double(kRows * kVocab * 4), written = double(kRows * int64_t(sizeof(TopRecord)));
  return {c.at("threadInstructions") / double(kRows * kVocab), 32 * c.at("uniqueReadSectors") / read,
          32 * c.at("sectorsRequested") / (read + written),
          c.at("sharedWavefronts") / c.at("sharedIdealWavefronts")};
}

// Of 8 rows with the default options and as many penalties as they make; instructions are those of a
// candidate.
Figures measure_draw_token(Gpu& gpu) {
  constexpr int64_t kRows = 8, kVocab = 2048;
  constexpr int kPenalties = 64;
  std::mt19937 random(5);
  Logits logits(gpu.device, gpu.kernels);
  logits.prepare(kRows);
  DrawRequest draw{.temperature = 0.8f, .top_p = 0.95f, .repetition_penalty = 1.1f, .top_k = 40};
  draw.n_changes = kPenalties;
  for (int i = 0; i < kPenalties; ++i) draw.changes[i] = {30 * i, 0};
  const Tensor x = gpu.upload(random_floats(size_t(kRows * kVocab), random), kVocab);
  simulator<int()>("ptxsim_reset")();
  logits.copy(x, std::vector<RowRequest>(kRows, {.draw = draw}));
  gpu.device.synchronize();
  for (const LogitRow& row : logits.rows()) CHECK(row.token >= 0);
  const auto c = counters("draw_token");
  const double read = double(kRows) * (sizeof(TopRecord) + offsetof(DrawRequest, changes[kPenalties])),
               written = double(kRows) * sizeof(int32_t);
  return {c.at("threadInstructions") / double(kRows * kTopLogits), 32 * c.at("uniqueReadSectors") / read,
          32 * c.at("sectorsRequested") / (read + written),
          c.at("sharedWavefronts") / c.at("sharedIdealWavefronts")};
}

// Of an adapter of rank 16 in F16 for 4096 columns and features; instructions are those of a value of A or B.
Figures measure_adapter(Gpu& gpu, const std::string& kernel, int rows) {
  constexpr int64_t kRank = 16, kCols = 4096;
  constexpr double kFactor = kRank * kCols;
  AdapterMemory adapter(gpu.device, gpu.kernels, rows, uint64_t{1} << 20);
  const Bytes a(size_t(2 * kRank * kCols), 0x3c);
  adapter.set_products({{adapter.load_lora_a(StoredRows(QuantType::kF16, kRank, kCols, a)),
                         adapter.load_lora_b(StoredRows(QuantType::kF16, kCols, kRank, a)),
                         1.0f,
                         {}}});
  std::mt19937 random(5);
  const std::vector<float> x = random_floats(size_t(rows * kCols), random);
  const Tensor in = gpu.upload(x, kCols), out = gpu.upload(x, kCols);
  LowRankProducts products(gpu.device, gpu.kernels);
  Step step(gpu.device);
  step.n_rows = rows;
  const AdapterRows group{&adapter, {0, rows}};
  products.set_adapters(step, {&group, 1});
  gpu.device.synchronize();
  simulator<int()>("ptxsim_reset")();
  const NumberedProduct product{0, out};
  products.add(in, nullptr, {&product, 1}, Epilogue::kStore);
  gpu.device.synchronize();
  const auto c = counters(kernel);
  const bool is_down = kernel == "low_rank_down";
  const double wide = double(rows * kCols * 4), narrow = double(rows * kRank * 4);
  const double read = 2 * kFactor + wide + (is_down ? 0 : narrow), written = is_down ? narrow : wide;
  return {c.at("threadInstructions") / kFactor, 32 * c.at("uniqueReadSectors") / read,
          32 * c.at("sectorsRequested") / (read + written),
          c.at("sharedWavefronts") / c.at("sharedIdealWavefronts")};
}

// Of the heads of Mistral 7B; instructions are those of an element of a key or value.
Figures measure_attention(Gpu& gpu, KvType type, const std::string& kernel, int rows) {
  constexpr int32_t kHeads = 32, kKvHeads = 8, kHeadDim = 128;
  constexpr int64_t kKeys = 1024, kPages = kKeys / kPagePositions;
  const KvConfig config{1, kKvHeads, kHeadDim, type, kPages, 0};
  const KvCache cache(gpu.device, config);  // of anything: only what is read counts
  std::mt19937 random(6);
  const size_t q_size = size_t(rows * kHeads * kHeadDim);
  const Tensor q = gpu.upload(random_floats(q_size, random), kHeads * kHeadDim),
               out = gpu.upload(std::vector<float>(q_size), kHeads * kHeadDim);
  Attention attention(gpu.device, gpu.kernels);
  attention.configure(config);
  std::vector<PageId> pages(kPages);
  std::iota(pages.begin(), pages.end(), 0);
  Batch batch;
  batch.tokens.resize(size_t(rows));
  batch.sequences.push_back({0, rows, kKeys - rows, 0, pages});
  attention.begin(batch);
  gpu.device.synchronize();
  simulator<int()>("ptxsim_reset")();
  const auto address = [](Tensor t) { return DevicePointer(uintptr_t(t.data)); };
  attention.run(cache, 0, address(q), address(out), kHeads);
  gpu.device.synchronize();
  const auto c = counters(kernel);
  const double read = double(KvCache::page_bytes(config) * kPages) + double(q_size * 4),
               written = double(q_size * 4);
  return {c.at("threadInstructions") / double(kKeys * kKvHeads * kHeadDim * 2),
          32 * c.at("uniqueReadSectors") / read, 32 * c.at("sectorsRequested") / (read + written),
          c.at("sharedWavefronts") / c.at("sharedIdealWavefronts")};
}

std::map<std::string, std::string> read_table() {
  std::map<std::string, std::string> rows;
  std::ifstream file(MAESTRALE_FIGURES);
  for (std::string line; std::getline(file, line);)
    if (line[0] != '#' && line != kHeader) rows[line.substr(0, line.find(',', line.find(',') + 1))] = line;
  return rows;
}

std::string nvcc_release() {
  const std::string ptx(kPtx80, 400);
  const size_t at = ptx.find("release ");
  return ptx.substr(at, ptx.find('\n', at) - at);
}

}  // namespace

TEST("cuda: kernels ask no more of the machine than the committed figures") {
  using Kernels = std::vector<std::pair<const char*, int>>;
  const Kernels of_integers = {{"row", 1}, {"few", 8}, {"many", 32}, {"most", 64}, {"tile", 128}};
  const Kernels of_halves = {{"few", 1}, {"few", 8}, {"many", 32}, {"many", 64}, {"tile", 128}};
  std::string table = std::string("# ptxsim, ") + nvcc_release() +
                      ", 256 outputs of 4096 columns, 1024 keys of 8 heads, rows of 32000 logits, adapters "
                      "of rank 16, sm_80\n" +
                      kHeader + "\n";
  const auto committed = read_table();
  std::ifstream file(MAESTRALE_FIGURES);
  std::string first_line;
  std::getline(file, first_line);
  const bool comparable = first_line.find(nvcc_release()) != first_line.npos;
  const bool writes = std::getenv("MAESTRALE_WRITE_FIGURES") != nullptr;
  std::string worse;
  const auto compare = [&](const std::string& kernel, int rows, const Figures& got) {
    const std::string key = kernel + "," + std::to_string(rows), line = key + "," + got.text();
    table += line + "\n";
    if (got.unique > kUnique || got.conflicts > 1.1) worse += line + "\n";
    if (writes || !comparable) return;
    const auto row = committed.find(key);
    if (row == committed.end()) fail(__FILE__, __LINE__, key + " is not in bench/results/cuda-kernels.csv");
    Figures want;
    std::sscanf(row->second.c_str() + key.size() + 1, "%lf,%lf,%lf,%lf", &want.instructions, &want.unique,
                &want.sectors, &want.conflicts);
    constexpr double kRounding = 0.001;
    if (got.instructions > want.instructions + kRounding || got.unique > want.unique + kRounding ||
        got.sectors > want.sectors + kRounding || got.conflicts > want.conflicts + kRounding)
      worse += line + ", was " + row->second + "\n";
  };
  use_simulator("cc=80,races=0,initcheck=0,sms=8");  // which matmul_few fills
  std::optional<Gpu> of_products(std::in_place);
  of_products->products.expect_rows(128);
  of_products->products.expect_weights(QuantType::kF16, 4096);
  of_products->products.prepare();
  of_products->weights.reserve(uint64_t{256} << 20);
  for (const QuantTraits& traits : kQuantTraits) {
    if (!is_tiled(traits.type)) continue;
    for (const auto& [name, rows] : is_quantised(traits.type) ? of_integers : of_halves) {
      const std::string kernel = std::string("matmul_") + name + "_" + lower_case_name(traits.type);
      const Figures got = measure(*of_products, traits, kernel, rows);
      compare(kernel, rows, got);
      const bool one = rows == 1;
      if ((rows <= kFewRows && got.sectors > 1.3) ||
          (traits.type == QuantType::kQ4_K && got.instructions > (one         ? 3.0
                                                                  : rows == 8 ? 5.0
                                                                              : 1e9)))
        worse += kernel + " of " + std::to_string(rows) + " rows: " + got.text() + "\n";
    }
  }
  of_products.reset();
  use_simulator("cc=80,races=0,initcheck=0");
  {
    Gpu gpu;
    compare("top_logits", 8, measure_top_logits(gpu));
    compare("draw_token", 8, measure_draw_token(gpu));
    for (const char* kernel : {"low_rank_down", "low_rank_up"})
      for (const int rows : {1, 8}) {
        const Figures got = measure_adapter(gpu, kernel, rows);
        compare(kernel, rows, got);
        if (rows == 1 && got.sectors > 1.3)
          worse += std::string(kernel) + " of one row: " + got.text() + "\n";
      }
  }
  const struct {
    const char *prefix, *suffix, *multiprocessors;  // of which one has enough to do without divided keys
    int rows;
  } of_attention[] = {{"", "_128_16", "1", 1}, {"split_", "_128_16", "82", 1}, {"", "_128_64", "1", 64}};
  for (const auto& [prefix, suffix, multiprocessors, rows] : of_attention) {
    use_simulator((std::string("cc=80,races=0,initcheck=0,sms=") + multiprocessors).c_str());
    Gpu gpu;
    const char* kv_types[] = {"f16", "bf16", "q8_0"};  // by KvType
    for (size_t type = 0; type < 3; ++type) {
      const std::string kernel = std::string(prefix) + "attention_" + kv_types[type] + suffix;
      const Figures got = measure_attention(gpu, KvType(type), kernel, rows);
      compare(kernel, rows, got);
      if (rows == 1 && got.sectors > 1.3) worse += kernel + " of one row: " + got.text() + "\n";
    }
  }
  if (writes) std::ofstream(MAESTRALE_FIGURES) << table;
  if (!worse.empty()) fail(__FILE__, __LINE__, "worse than the committed figures:\n" + worse);
}

static void check_launches(const char* name, bool mixes, bool in_f32 = false) {
  use_simulator("cc=80,races=0,initcheck=0");  // it reads keys that nobody wrote
  const MappedFile file(std::string(test::kVectors) + "/models/" + name + ".gguf");
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  const ModelConfig config = config_from_gguf(header);
  const GgufWeights stored(file, header, config);
  const QuantizedWeights f32(stored, quant_mix("f32"), config);
  const auto model =
      load_model(in_f32 ? static_cast<const WeightStore&>(f32) : stored, config, make_cuda_backend(0), {});
  model->prepare(16, {config.n_layers, config.n_kv_heads, config.head_dim, KvType::kF16, 32, 0});
  const auto launches_of_step = [&](int64_t position) {
    Timeline timeline;
    timeline.position = position;
    simulator<int()>("ptxsim_reset")();
    run_logits(*model, tokens_below(512, 1), 1, timeline);
    return kernel_launches();
  };
  int mixed = 0;  // layers whose values have weights of another type than queries and keys
  for (int layer = 0; layer < config.n_layers; ++layer) {
    const std::string block = "blk." + std::to_string(layer);
    mixed += header.find_tensor(block + ".attn_v.weight")->type !=
             header.find_tensor(block + ".attn_q.weight")->type;
  }
  CHECK_EQ(mixed > 0, mixes);
  // Before the layers the embedding, behind them the rows wanted, their norm and the output.
  const int want = (in_f32 ? 9 : 8) * config.n_layers + mixed + 4;
  CHECK_EQ(launches_of_step(5), want);
  // Where the keys are divided among blocks, too.
  CHECK_EQ(launches_of_step(700), want);
  CHECK(counter("split_attention_f16_128_16", "launches") > 0);
}

TEST(
    "cuda: a decoding step takes eight launches a layer, and one more where values have a type of their "
    "own") {
  for (const char* name : {"hd128-q6_k", "hd128-bf16"}) check_launches(name, false);
  check_launches("hd128-q4_k_m", true);
}

TEST("cuda: with weights in F32 a decoding step takes nine launches a layer") {
  check_launches("hd128-bf16", false, true);
}
