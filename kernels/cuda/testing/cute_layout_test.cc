// Holds page images, descriptors and the emulator's wgmma against CuTe, NVIDIA's own description of
// what the tensor cores read: layouts, cute/atom/mma_traits_sm90_gmma.hpp. On the CPU.

#include <gtest/gtest.h>

#include <cstring>
#include <cute/atom/mma_atom.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>
#include <cute/tensor.hpp>
#include <type_traits>
#include <vector>

#include "kernels/cuda/attend_wide.cuh"

namespace evaserve {
namespace {

namespace gmma = cute::SM90::GMMA;
using cute::Int, cute::Shape, cute::Step;

using Half = cute::bfloat16_t;
constexpr DType kType = DType::kBFloat16;
constexpr int kThreads = 128, kRows = 64, kDepth = 16;  // of one wgmma
constexpr auto kKMajor = gmma::Major::K, kMnMajor = gmma::Major::MN;

// What the wide kernel reads and the instructions that it uses, as CuTe has them.
template <int kHeadDim>
struct Cute {
  static constexpr bool kHas128Bytes = PageImage<kHeadDim>::kRowBytes == 128;
  using KeysAtom = std::conditional_t<kHas128Bytes, gmma::Layout_K_SW128_Atom<Half>,
                                      gmma::Layout_K_SW64_Atom<Half>>;
  using ValuesAtom = std::conditional_t<kHas128Bytes, gmma::Layout_MN_SW128_Atom<Half>,
                                        gmma::Layout_MN_SW64_Atom<Half>>;
  using KeysShape = Shape<Int<kCudaPageSlots>, Int<kHeadDim>>;
  using ValuesShape = Shape<Int<kHeadDim>, Int<kCudaPageSlots>>;
  // Element (slot, dimension) and element (dimension, slot) of an image.
  using Keys = decltype(cute::tile_to_shape(KeysAtom{}, KeysShape{}));
  using Values = decltype(cute::tile_to_shape(ValuesAtom{}, ValuesShape{}, Step<Int<2>, Int<1>>{}));

  using KeysTile = Shape<Int<kRows>, Int<kCudaPageSlots>, Int<kDepth>>;
  using ValuesTile = Shape<Int<kRows>, Int<kHeadDim>, Int<kDepth>>;
  using KeysOp = decltype(gmma::ss_op_selector<Half, Half, float, KeysTile, kKMajor, kKMajor>());
  using ValuesOp =
      decltype(gmma::rs_op_selector<Half, Half, float, ValuesTile, kKMajor, kMnMajor>());
};

template <typename Layout>
int ByteOffset(Layout layout, int i, int j) {
  return cute::as_position_independent_swizzle_layout(layout)(i, j) * sizeof(Half);
}

// The descriptors with which Op reads b from address 0, one for each step of kDepth.
template <typename Op, typename Layout>
std::vector<ptx::Descriptor> Descriptors(Layout layout) {
  const auto b = cute::make_tensor(cute::make_smem_ptr(static_cast<Half*>(nullptr)), layout);
  const auto thread = cute::make_tiled_mma(Op{}).get_slice(0);
  testing::internal::CaptureStdout();  // CuTe says that shared memory has no addresses here
  const auto fragment = thread.make_fragment_B(thread.partition_B(b));
  testing::internal::GetCapturedStdout();
  std::vector<ptx::Descriptor> descriptors;
  for (int k = 0; k < cute::size<2>(fragment); ++k) descriptors.push_back(fragment(0, 0, k));
  return descriptors;
}

template <int kHeadDim>
std::vector<ptx::Descriptor> KeysDescriptors() {
  return Descriptors<typename Cute<kHeadDim>::KeysOp>(typename Cute<kHeadDim>::Keys{});
}
template <int kHeadDim>
std::vector<ptx::Descriptor> ValuesDescriptors() {
  return Descriptors<typename Cute<kHeadDim>::ValuesOp>(typename Cute<kHeadDim>::Values{});
}

// Small whole numbers, whose products every type adds up exactly.
struct Matrix {
  int seed, num_rows, num_columns;

  float At(int i, int j) const {
    return static_cast<float>((seed * 7 + i * 37 + j * 101 + i * j) % 31 - 15);
  }
  // In the block's shared memory, element (i, j) where `layout` has it.
  template <typename Layout>
  void Store(Layout layout, ptx::SharedAddress to) const {
    for (int i = ptx::ThreadIndex(); i < num_rows; i += kThreads) {
      for (int j = 0; j < num_columns; ++j) {
        const uint16_t bits = HalfFromFloat<kType>(At(i, j));
        std::memcpy(ptx::SharedMemory() + to + ByteOffset(layout, i, j), &bits, 2);
      }
    }
  }
};

// This thread's part of columns [begin, begin + kDepth) of a.
template <typename Op>
void LoadFragment(const Matrix& a, int begin, uint32_t (&fragment)[4]) {
  const typename cute::MMA_Traits<Op>::ALayout layout;
  const auto element = [&](int i) {
    const int at = layout(ptx::ThreadIndex(), i);
    return a.At(at % kRows, begin + at / kRows);
  };
  for (int i = 0; i < 4; ++i) {
    fragment[i] = ptx::PackHalves<kType>(element(2 * i), element(2 * i + 1));
  }
}

// How many of this thread's sums are not those of a and the transpose of b.
template <typename Op, int kSums>
int CountWrong(const float (&sums)[kSums], const Matrix& a, const Matrix& b) {
  const typename cute::MMA_Traits<Op>::CLayout layout;
  int num_wrong = 0;
  for (int i = 0; i < kSums; ++i) {
    const int at = layout(ptx::ThreadIndex(), i);
    float sum = 0.f;
    for (int k = 0; k < a.num_columns; ++k) sum += a.At(at % kRows, k) * b.At(at / kRows, k);
    num_wrong += sums[i] == sum ? 0 : 1;
  }
  return num_wrong;
}

absl::Status RunWarpgroup(size_t shared_bytes, absl::FunctionRef<void()> kernel) {
  return emulator::Launch({1, kThreads, shared_bytes, /*seed=*/1}, kernel);
}

template <typename HeadDim>
class CuteLayoutTest : public testing::Test {};
using HeadDims = testing::Types<Int<32>, Int<64>, Int<96>, Int<128>>;
TYPED_TEST_SUITE(CuteLayoutTest, HeadDims);

TYPED_TEST(CuteLayoutTest, PagesLieAsKeysMustInSharedMemory) {
  constexpr int kHeadDim = TypeParam::value;
  const typename Cute<kHeadDim>::Keys keys;
  for (int slot = 0; slot < kCudaPageSlots; ++slot) {
    for (int dim = 0; dim < kHeadDim; ++dim) {
      ASSERT_EQ(PageImage<kHeadDim>::Offset(slot, dim), ByteOffset(keys, slot, dim))
          << slot << " " << dim;
    }
  }
}

TYPED_TEST(CuteLayoutTest, PagesLieAsValuesMustInSharedMemory) {
  constexpr int kHeadDim = TypeParam::value;
  const typename Cute<kHeadDim>::Values values;
  for (int slot = 0; slot < kCudaPageSlots; ++slot) {
    for (int dim = 0; dim < kHeadDim; ++dim) {
      ASSERT_EQ(PageImage<kHeadDim>::Offset(slot, dim), ByteOffset(values, dim, slot))
          << slot << " " << dim;
    }
  }
}

// The strides and steps of WideConsumer::IssueKeys().
TYPED_TEST(CuteLayoutTest, KeysAreDescribedAsCuteDoes) {
  constexpr int kHeadDim = TypeParam::value;
  using Consumer = WideConsumer<kType, kHeadDim>;
  const ptx::Descriptor first =
      ptx::MatrixDescriptor(0, Consumer::kSwizzle, 16, Consumer::kGroupBytes);
  std::vector<ptx::Descriptor> descriptors;
  for (int k = 0; k < kHeadDim / kDepth; ++k) {
    descriptors.push_back(
        ptx::Advance(first, k / Consumer::kStepsPerBlock * Consumer::Image::kBlockBytes +
                                k % Consumer::kStepsPerBlock * 32));
  }

  EXPECT_EQ(descriptors, KeysDescriptors<kHeadDim>());
}

// The strides and steps of WideConsumer::IssueValues().
TYPED_TEST(CuteLayoutTest, ValuesAreDescribedAsCuteDoes) {
  constexpr int kHeadDim = TypeParam::value;
  using Consumer = WideConsumer<kType, kHeadDim>;
  constexpr bool kHasBlocks = Consumer::Image::kNumBlocks > 1;  // without, CuTe leaves the stride 0
  const ptx::Descriptor first = ptx::MatrixDescriptor(
      0, Consumer::kSwizzle, kHasBlocks ? Consumer::Image::kBlockBytes : 0, Consumer::kGroupBytes);
  std::vector<ptx::Descriptor> descriptors;
  for (int k = 0; k < kCudaPageSlots / kDepth; ++k) {
    descriptors.push_back(ptx::Advance(first, k * 2 * Consumer::kGroupBytes));
  }

  EXPECT_EQ(descriptors, ValuesDescriptors<kHeadDim>());
}

// Queries times keys.
TYPED_TEST(CuteLayoutTest, TheEmulatorMultipliesWhatCuteLaysInSharedMemory) {
  constexpr int kHeadDim = TypeParam::value;
  constexpr ptx::SharedAddress kKeys = PageImage<kHeadDim>::kBytes;
  const typename Cute<kHeadDim>::Keys layout;
  const std::vector<ptx::Descriptor> descriptors = KeysDescriptors<kHeadDim>();
  const Matrix queries{1, kRows, kHeadDim}, keys{2, kCudaPageSlots, kHeadDim};
  int num_wrong = 0;

  const absl::Status status = RunWarpgroup(2 * kKeys, [&] {
    queries.Store(layout, 0);
    keys.Store(layout, kKeys);
    ptx::SyncBlock();
    float sums[kCudaPageSlots / 2];
    ptx::FenceWgmma();
    for (size_t k = 0; k < descriptors.size(); ++k) {
      ptx::WgmmaShared<kType, kCudaPageSlots>(sums, descriptors[k],
                                              ptx::Advance(descriptors[k], kKeys), k != 0);
    }
    ptx::CommitWgmmas();
    ptx::WaitForWgmmas<0>();
    num_wrong += CountWrong<typename Cute<kHeadDim>::KeysOp>(sums, queries, keys);
  });

  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(num_wrong, 0);
}

// Weights in registers times values.
TYPED_TEST(CuteLayoutTest, TheEmulatorMultipliesWhatCuteLaysInRegisters) {
  constexpr int kHeadDim = TypeParam::value;
  using Op = typename Cute<kHeadDim>::ValuesOp;
  const typename Cute<kHeadDim>::Values layout;
  const std::vector<ptx::Descriptor> descriptors = ValuesDescriptors<kHeadDim>();
  const Matrix weights{1, kRows, kCudaPageSlots}, values{2, kHeadDim, kCudaPageSlots};
  int num_wrong = 0;

  const absl::Status status = RunWarpgroup(PageImage<kHeadDim>::kBytes, [&] {
    values.Store(layout, 0);
    ptx::SyncBlock();
    float sums[kHeadDim / 2];
    uint32_t fragments[kCudaPageSlots / kDepth][4];
    ptx::FenceWgmma();
    for (size_t k = 0; k < descriptors.size(); ++k) {
      LoadFragment<Op>(weights, static_cast<int>(k) * kDepth, fragments[k]);
      ptx::WgmmaRegisters<kType, kHeadDim>(sums, fragments[k], descriptors[k], k != 0);
    }
    ptx::CommitWgmmas();
    ptx::WaitForWgmmas<0>();
    num_wrong += CountWrong<Op>(sums, weights, values);
  });

  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(num_wrong, 0);
}

}  // namespace
}  // namespace evaserve
