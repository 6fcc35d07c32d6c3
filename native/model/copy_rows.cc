// SPDX-License-Identifier: Apache-2.0
#include "model/copy_rows.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "quant/dequantize.h"

namespace maestrale {
namespace {

constexpr uint64_t kChunkBytes = uint64_t{8} << 20;  // of a tensor's data in memory
constexpr int64_t kRowsAtOnce = 8;                   // by one thread

// Sums over weights; rows are added in order, so the figure does not depend on threads.
struct SquaredError {
  double error = 0, power = 0;
  void add(const SquaredError& other) {
    error += other.error;
    power += other.power;
  }
};

SquaredError compare_row(const float* written, const float* original, int64_t n) {
  SquaredError sum;
  for (int64_t i = 0; i < n; ++i) {
    const double difference = double(written[i]) - double(original[i]);
    sum.error += difference * difference;
    sum.power += double(original[i]) * double(original[i]);
  }
  return sum;
}

// Copies the rows of one tensor after the other into chunks.
class RowCopier {
 public:
  explicit RowCopier(int32_t threads) : pool_(threads > 0 ? threads : available_cpus()) {}

  void open(const WeightStore& weights, const WeightStore& original, const ModelTensor& tensor) {
    source_ = weights.open(tensor);
    original_ = original.open(tensor);
    compares_ = source_->type != original_->type && !tensor.is_norm();
  }
  int64_t rows() const { return source_->rows; }
  uint64_t stride() const { return row_bytes(source_->type, uint64_t(source_->cols)); }

  // Rows [first, first + n), valid until the next call.
  std::span<const std::byte> read(int64_t first, int64_t n, SquaredError& error) {
    chunk_.resize(size_t(n) * stride());
    errors_.assign(size_t(n), {});
    pool_.share_throwing(n, kRowsAtOnce, [&](int64_t begin, int64_t end) {
      std::byte* out = chunk_.data() + uint64_t(begin) * stride();
      source_->read_rows(first + begin, end - begin, out);
      if (compares_) compare(first, begin, end);
    });
    for (const SquaredError& row : errors_) error.add(row);
    return chunk_;
  }

 private:
  void compare(int64_t first, int64_t begin, int64_t end) {
    const int64_t cols = source_->cols;
    std::vector<std::byte> stored(row_bytes(original_->type, uint64_t(cols)));
    std::vector<float> before(static_cast<size_t>(cols)), after(before.size());
    for (int64_t row = begin; row < end; ++row) {
      original_->read_rows(first + row, 1, stored.data());
      dequantize_row(original_->type, stored.data(), cols, before.data());
      dequantize_row(source_->type, chunk_.data() + uint64_t(row) * stride(), cols, after.data());
      errors_[size_t(row)] = compare_row(after.data(), before.data(), cols);
    }
  }

  ThreadPool pool_;
  std::unique_ptr<const MatrixSource> source_, original_;
  bool compares_ = false;
  std::vector<std::byte> chunk_;
  std::vector<SquaredError> errors_;  // (rows of the chunk)
};

}  // namespace

WrittenModel copy_rows(const WeightStore& weights, const WeightStore& original, int32_t threads,
                       const LoadCallbacks& callbacks,
                       const std::function<void(std::span<const std::byte>)>& write) {
  WrittenModel written;
  uint64_t done = 0, total = 0;
  for (const ModelTensor& tensor : weights.tensors()) {
    const QuantType type = weights.type(tensor);
    total += uint64_t(tensor.rows) * row_bytes(type, uint64_t(tensor.cols));
    ++written.types[type];
  }
  const auto report = [&] {
    if (callbacks.on_progress) callbacks.on_progress(done, total);
  };
  report();

  RowCopier copier(threads);
  SquaredError error;
  for (const ModelTensor& tensor : weights.tensors()) {
    copier.open(weights, original, tensor);
    const int64_t step = std::max<int64_t>(kRowsAtOnce, int64_t(kChunkBytes / copier.stride()));
    for (int64_t first = 0; first < copier.rows(); first += step) {
      check_cancelled(callbacks);
      const auto chunk = copier.read(first, std::min(step, copier.rows() - first), error);
      write(chunk);
      done += chunk.size();
      report();
    }
  }
  check_cancelled(callbacks);
  if (error.power > 0) written.relative_error = std::sqrt(error.error / error.power);
  return written;
}

}  // namespace maestrale
