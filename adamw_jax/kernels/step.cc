// One step of Adam's shape for many arrays, each read and written once.
//
// `formula` in call.py is the same arithmetic in JAX, for one array; this file must agree with it.
// An array may have a leading axis of lanes, each with coefficients of its own.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

// A copy of the loops for each of these processors, of which the loader picks one.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#if defined(__clang__) || __GNUC__ < 12  // these cannot pick by level
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#endif
#endif
#ifndef FOR_EACH_PROCESSOR
#define FOR_EACH_PROCESSOR
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

constexpr int64_t kBlock = 32768;  // numbers that a thread takes at a time
constexpr int64_t kTile = 1024;    // numbers that are widened at a time, so that they stay in cache

// A row of the coefficients, in the order of `Coefficients` in call.py.
template <class T>
struct Coefficients {
  T complement1, correction1, complement2, correction2, eps, eps_root;
  T gradient_scale, gradient_decay, scale, decay;
};

struct Array {
  ffi::DataType type = ffi::DataType::INVALID;
  char* data = nullptr;  // null where there is no such array
};

// The gradient, parameter and moments of a leaf before the step, and what it makes of them.
struct Leaf {
  Array g, p, m, v, out, new_m, new_v;
  const char* coefficients;
  int64_t coefficients_stride;  // in bytes, from a lane to the next
  int64_t size, lane_size;
  bool is_applied;  // whether `out` is the new parameter or the update
};

// Functions of the standard library are not inlined into the loops for other processors.
INLINE float root(float x) { return __builtin_sqrtf(x); }
INLINE double root(double x) { return __builtin_sqrt(x); }

template <class T>
INLINE bool is_finite(T x) {
  return x - x == 0;
}

// numerics.average: the step is taken from the nearer end, and an infinite average stays infinite.
// No condition joins one on a number with `is_long`, which is the same for all numbers: the loop
// would take twice the time.
template <class T>
INLINE T average(T old, T fresh, bool is_long, T factor) {
  const T half = T(0.5) * fresh - T(0.5) * old;
  const T end = is_long ? old : fresh;
  const T moved = is_finite(end) ? end + factor * half : end;
  return is_finite(old) ? moved : old;
}

// x, or 0 where the mask is 0 instead of all ones. Of a choice between x and 0 the compiler would
// make a load under a mask, which the processor does not fetch ahead.
template <class T, class Bits>
INLINE T masked(T x, Bits mask) {
  static_assert(sizeof(T) == sizeof(Bits));
  Bits bits;
  std::memcpy(&bits, &x, sizeof x);
  bits &= mask;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// What a step does: an update without parameters, one that decays them, or moving them.
enum class Door { kUpdate, kDecayedUpdate, kMove };

// n numbers. What is read and written is advanced where it is: the moments, and `out`, which holds
// the parameters if they are moved, otherwise the gradients; `other` holds the other of the two.
template <class T, Door kDoor, bool kFirst, bool kSecond>
INLINE void advance(const Coefficients<T>& c, int64_t n, const T* __restrict other,
                    T* __restrict m, T* __restrict v, T* __restrict out) {
  const bool long1 = 2 * c.complement1 <= 1, long2 = 2 * c.complement2 <= 1;
  const T factor1 = long1 ? 2 * c.complement1 : -(2 * (1 - c.complement1));
  const T factor2 = long2 ? 2 * c.complement2 : -(2 * (1 - c.complement2));
  // Where nothing decays, a parameter that is infinite is left out, too.
  using Bits = std::conditional_t<std::is_same_v<T, float>, uint32_t, uint64_t>;
  const Bits decays = -Bits(c.decay != 0), regularizes = -Bits(c.gradient_decay != 0);
  for (int64_t i = 0; i < n; ++i) {
    const T g = kDoor == Door::kMove ? other[i] : out[i];
    const T p = kDoor == Door::kMove ? out[i] : kDoor == Door::kUpdate ? T(0) : other[i];
    const T gradient = c.gradient_scale * g + c.gradient_decay * masked(p, regularizes);
    T direction = gradient;
    if constexpr (kFirst) {
      m[i] = average(m[i], gradient, long1, factor1);
      direction = m[i] * c.correction1;
    }
    if constexpr (kSecond) {
      v[i] = average(v[i], gradient * gradient, long2, factor2);
      direction /= root(v[i] * c.correction2 + c.eps_root) + c.eps;
    }
    const T update = c.scale * direction + c.decay * masked(p, decays);
    out[i] = kDoor == Door::kMove ? p + update : update;
  }
}

// Narrow numbers, and what they are in float.

INLINE float widened(uint16_t x) {  // bfloat16
  const uint32_t bits = uint32_t(x) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}

INLINE void narrow(float x, uint16_t* y) {  // to nearest, ties to even; a NaN stays one
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  *y = uint16_t(x == x ? rounded : (bits >> 16) | 0x40);
}

#ifdef __FLT16_MAX__
INLINE float widened(_Float16 x) { return float(x); }
INLINE void narrow(float x, _Float16* y) { *y = _Float16(x); }
#endif

template <class Narrow>
INLINE void widen(const void* from, int64_t n, float* to) {
  const Narrow* x = static_cast<const Narrow*>(from);
  for (int64_t i = 0; i < n; ++i) to[i] = widened(x[i]);
}

template <class Narrow>
INLINE void round(const float* from, int64_t n, void* to) {
  Narrow* y = static_cast<Narrow*>(to);
  for (int64_t i = 0; i < n; ++i) narrow(from[i], y + i);
}

int64_t width(const Array& array) { return int64_t(ffi::ByteWidth(array.type)); }

// A tile of an array as T: where it lies, if it is T already, otherwise widened into the buffer.
template <class T>
INLINE const T* read(const Array& array, int64_t at, int64_t n, T* buffer) {
  if (array.data == nullptr) return nullptr;
  const char* from = array.data + at * width(array);
  if constexpr (std::is_same_v<T, float>) {
    if (array.type == ffi::DataType::BF16) return widen<uint16_t>(from, n, buffer), buffer;
#ifdef __FLT16_MAX__
    if (array.type == ffi::DataType::F16) return widen<_Float16>(from, n, buffer), buffer;
#endif
  }
  return reinterpret_cast<const T*>(from);
}

// Where a tile of an array is advanced: there, if it is T, otherwise in the buffer. It starts as a
// tile of another array, which usually lies in the same place.
template <class T>
INLINE T* target(const Array& array, int64_t at, int64_t n, T* buffer, const T* start) {
  if (array.data == nullptr) return nullptr;
  T* to = width(array) == int64_t(sizeof(T)) ? reinterpret_cast<T*>(array.data) + at : buffer;
  if (start != to) std::memcpy(to, start, size_t(n) * sizeof(T));
  return to;
}

// Rounds what was written into the buffer to where it belongs.
template <class T>
INLINE void write(const Array& array, int64_t at, int64_t n, const T* buffer) {
  if constexpr (std::is_same_v<T, float>) {
    char* to = array.data + at * width(array);
    if (array.type == ffi::DataType::BF16) round<uint16_t>(buffer, n, to);
#ifdef __FLT16_MAX__
    if (array.type == ffi::DataType::F16) round<_Float16>(buffer, n, to);
#endif
  }
}

template <class T, Door kDoor>
INLINE void advance_tile(const Leaf& leaf, const Coefficients<T>& c, int64_t at, int64_t n) {
  T buffers[4][kTile];
  const bool moves = kDoor == Door::kMove;
  const T* other = read(moves ? leaf.g : leaf.p, at, n, buffers[0]);
  T* out = target(leaf.out, at, n, buffers[1], read(moves ? leaf.p : leaf.g, at, n, buffers[1]));
  T* m = target(leaf.new_m, at, n, buffers[2], read(leaf.m, at, n, buffers[2]));
  T* v = target(leaf.new_v, at, n, buffers[3], read(leaf.v, at, n, buffers[3]));
  if (m == nullptr) {
    advance<T, kDoor, false, true>(c, n, other, m, v, out);
  } else if (v == nullptr) {
    advance<T, kDoor, true, false>(c, n, other, m, v, out);
  } else {
    advance<T, kDoor, true, true>(c, n, other, m, v, out);
  }
  write(leaf.out, at, n, out);
  if (m != nullptr) write(leaf.new_m, at, n, m);
  if (v != nullptr) write(leaf.new_v, at, n, v);
}

template <class T>
INLINE void advance_range(const Leaf& leaf, int64_t begin, int64_t end) {
  for (int64_t at = begin; at < end;) {
    const int64_t lane = at / leaf.lane_size;
    const int64_t n = std::min({kTile, end - at, (lane + 1) * leaf.lane_size - at});
    Coefficients<T> c;
    std::memcpy(&c, leaf.coefficients + lane * leaf.coefficients_stride, sizeof c);
    if (leaf.is_applied) {
      advance_tile<T, Door::kMove>(leaf, c, at, n);
    } else if (leaf.p.data == nullptr) {
      advance_tile<T, Door::kUpdate>(leaf, c, at, n);
    } else {
      advance_tile<T, Door::kDecayedUpdate>(leaf, c, at, n);
    }
    at += n;
  }
}

FOR_EACH_PROCESSOR void advance_leaf(const Leaf& leaf, bool is_double, int64_t begin, int64_t end) {
  is_double ? advance_range<double>(leaf, begin, end) : advance_range<float>(leaf, begin, end);
}

// A part of a leaf, and all of them in blocks of about kBlock numbers.
struct Part {
  const Leaf* leaf;
  int64_t begin, end;
};

struct Work {
  std::vector<Leaf> leaves;
  std::vector<Part> parts;
  std::vector<size_t> blocks;  // where each block begins among the parts, and the last one ends
  bool is_double;
  std::atomic<size_t> next{0}, done{0};
  std::mutex mutex;
  std::condition_variable finished;

  void divide() {
    int64_t room = 0;
    for (const Leaf& leaf : leaves) {
      for (int64_t begin = 0; begin < leaf.size;) {
        if (room == 0) blocks.push_back(parts.size()), room = kBlock;
        const int64_t n = std::min(room, leaf.size - begin);
        parts.push_back({&leaf, begin, begin + n});
        begin += n, room -= n;
      }
    }
    blocks.push_back(parts.size());
  }

  size_t count() const { return blocks.size() - 1; }

  // Advances block after block, until all are taken.
  void run() {
    for (size_t i; (i = next.fetch_add(1)) < count();) {
      for (size_t k = blocks[i]; k < blocks[i + 1]; ++k) {
        advance_leaf(*parts[k].leaf, is_double, parts[k].begin, parts[k].end);
      }
      if (done.fetch_add(1) + 1 == count()) {
        std::lock_guard<std::mutex> lock(mutex);
        finished.notify_all();
      }
    }
  }

  // Waits for the blocks that other threads are at. A thread that spins would keep its processor
  // from them.
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [this] { return done.load() == count(); });
  }
};

// Operands: the coefficients, [lanes…, leaves, 10]; then all gradients, and, as far as there are
// such, all parameters, first moments and second moments. Results: what is made of each gradient,
// then the new first and second moments.
ffi::Error step(ffi::ThreadPool pool, bool has_params, bool has_first, bool has_second,
                bool is_applied, ffi::AnyBuffer coefficients, ffi::RemainingArgs args,
                ffi::RemainingRets rets) {
  const auto dimensions = coefficients.dimensions();
  const size_t count = size_t(dimensions[dimensions.size() - 2]);
  const int64_t columns = dimensions[dimensions.size() - 1];
  const auto work = std::make_shared<Work>();
  work->is_double = coefficients.element_type() == ffi::DataType::F64;
  const int64_t row = columns * (work->is_double ? 8 : 4);
  const int64_t lanes =
      std::max(int64_t(1), int64_t(coefficients.element_count()) / (columns * int64_t(count)));
  if (columns != 10 || args.size() != count * (1 + has_params + has_first + has_second) ||
      rets.size() != count * (1 + has_first + has_second)) {
    return ffi::Error::InvalidArgument("the arrays are not as many as the coefficients say");
  }
  const auto read = [&](bool exists, size_t i) -> Array {
    if (!exists) return {};
    const auto buffer = args.get<ffi::AnyBuffer>(i);
    return {buffer->element_type(), static_cast<char*>(buffer->untyped_data())};
  };
  const auto written = [&](bool exists, size_t i) -> Array {
    if (!exists) return {};
    auto buffer = *rets.get<ffi::AnyBuffer>(i);
    return {buffer->element_type(), static_cast<char*>(buffer->untyped_data())};
  };
  work->leaves.reserve(count);
  work->parts.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const size_t m = i + count * (1 + has_params), v = m + count * has_first;
    Leaf leaf;
    leaf.g = read(true, i), leaf.p = read(has_params, i + count);
    leaf.m = read(has_first, m), leaf.v = read(has_second, v);
    leaf.out = written(true, i), leaf.new_m = written(has_first, i + count);
    leaf.new_v = written(has_second, i + count * (1 + has_first));
    leaf.coefficients = static_cast<const char*>(coefficients.untyped_data()) + int64_t(i) * row;
    leaf.coefficients_stride = row * int64_t(count);
    leaf.size = int64_t(args.get<ffi::AnyBuffer>(i)->element_count());
    leaf.lane_size = leaf.size / lanes;
    leaf.is_applied = is_applied;
    work->leaves.push_back(leaf);
  }
  work->divide();
  const int64_t threads = std::min(pool.num_threads(), int64_t(work->count()));
  // A task that comes late finds nothing to do, perhaps after this function has returned, so it
  // shares the work. This thread waits only for blocks that another is at, so that none can block.
  for (int64_t i = 1; i < threads; ++i) pool.Schedule([work] { work->run(); });
  work->run();
  work->wait();
  return ffi::Error::Success();
}

}  // namespace

// Whether float16 can be read here.
extern "C" int adamw_jax_has_float16() {
#ifdef __FLT16_MAX__
  return 1;
#else
  return 0;
#endif
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(adamw_jax_step, step,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<bool>("has_params")
                                  .Attr<bool>("has_first")
                                  .Attr<bool>("has_second")
                                  .Attr<bool>("is_applied")
                                  .Arg<ffi::AnyBuffer>()
                                  .RemainingArgs()
                                  .RemainingRets());
