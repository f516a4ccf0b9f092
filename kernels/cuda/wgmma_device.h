#pragma once

// wgmma for the widths that attention needs. Included by ptx_device.h alone. Operands are numbered:
// first the sums, then a, then b, then whether to accumulate.

#define EVASERVE_NAMES_16(d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, da, db, dc, dd, de, df) \
  "%" #d0 ", %" #d1 ", %" #d2 ", %" #d3 ", %" #d4 ", %" #d5 ", %" #d6 ", %" #d7 ", %" #d8 \
  ", %" #d9 ", %" #da ", %" #db ", %" #dc ", %" #dd ", %" #de ", %" #df

#define EVASERVE_NAMES_TO_16 EVASERVE_NAMES_16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define EVASERVE_NAMES_TO_32 \
  EVASERVE_NAMES_TO_16       \
  ", " EVASERVE_NAMES_16(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31)
#define EVASERVE_NAMES_TO_48 \
  EVASERVE_NAMES_TO_32       \
  ", " EVASERVE_NAMES_16(32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47)
#define EVASERVE_NAMES_TO_64 \
  EVASERVE_NAMES_TO_48       \
  ", " EVASERVE_NAMES_16(48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63)

#define EVASERVE_SUMS_8(i)                                                                    \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define EVASERVE_SUMS_16 EVASERVE_SUMS_8(0), EVASERVE_SUMS_8(8)
#define EVASERVE_SUMS_32 EVASERVE_SUMS_16, EVASERVE_SUMS_8(16), EVASERVE_SUMS_8(24)
#define EVASERVE_SUMS_48 EVASERVE_SUMS_32, EVASERVE_SUMS_8(32), EVASERVE_SUMS_8(40)
#define EVASERVE_SUMS_64 EVASERVE_SUMS_48, EVASERVE_SUMS_8(48), EVASERVE_SUMS_8(56)

// sums = columns / 2; then the numbers of the operands after them.
#define EVASERVE_WGMMA_SHARED(columns, sums, type, a, b, accumulate_)                 \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #accumulate_                      \
               ", 0;\n"                                                               \
               "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type  \
               " {" EVASERVE_NAMES_TO_##sums "}, %" #a ", %" #b ", p, 1, 1, 0, 0;\n}" \
               : EVASERVE_SUMS_##sums                                                 \
               : "l"(a_matrix), "l"(b_matrix), "r"(static_cast<int>(accumulate)))

#define EVASERVE_WGMMA_REGISTERS(columns, sums, type, a0, a1, a2, a3, b, accumulate_)            \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #accumulate_                                 \
               ", 0;\n"                                                                          \
               "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type             \
               " {" EVASERVE_NAMES_TO_##sums "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b \
                                             ", p, 1, 1, 1;\n}"                                  \
               : EVASERVE_SUMS_##sums                                                            \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_matrix),                      \
                 "r"(static_cast<int>(accumulate)))

namespace evaserve::ptx {

template <DType kType, int kColumns>
EVASERVE_PTX void WgmmaShared(float (&d)[kColumns / 2], Descriptor a_matrix, Descriptor b_matrix,
                              bool accumulate) {
  static_assert(kColumns == 128);
  if constexpr (kType == DType::kBFloat16) {
    EVASERVE_WGMMA_SHARED(128, 64, "bf16", 64, 65, 66);
  } else {
    EVASERVE_WGMMA_SHARED(128, 64, "f16", 64, 65, 66);
  }
}

#define EVASERVE_WGMMA_BY_WIDTH(type)                                \
  if constexpr (kColumns == 32) {                                    \
    EVASERVE_WGMMA_REGISTERS(32, 16, type, 16, 17, 18, 19, 20, 21);  \
  } else if constexpr (kColumns == 64) {                             \
    EVASERVE_WGMMA_REGISTERS(64, 32, type, 32, 33, 34, 35, 36, 37);  \
  } else if constexpr (kColumns == 96) {                             \
    EVASERVE_WGMMA_REGISTERS(96, 48, type, 48, 49, 50, 51, 52, 53);  \
  } else {                                                           \
    static_assert(kColumns == 128);                                  \
    EVASERVE_WGMMA_REGISTERS(128, 64, type, 64, 65, 66, 67, 68, 69); \
  }

template <DType kType, int kColumns>
EVASERVE_PTX void WgmmaRegisters(float (&d)[kColumns / 2], const uint32_t* a, Descriptor b_matrix,
                                 bool accumulate) {
  if constexpr (kType == DType::kBFloat16) {
    EVASERVE_WGMMA_BY_WIDTH("bf16")
  } else {
    EVASERVE_WGMMA_BY_WIDTH("f16")
  }
}

#undef EVASERVE_WGMMA_BY_WIDTH
#undef EVASERVE_WGMMA_REGISTERS
#undef EVASERVE_WGMMA_SHARED
#undef EVASERVE_SUMS_64
#undef EVASERVE_SUMS_48
#undef EVASERVE_SUMS_32
#undef EVASERVE_SUMS_16
#undef EVASERVE_SUMS_8
#undef EVASERVE_NAMES_TO_64
#undef EVASERVE_NAMES_TO_48
#undef EVASERVE_NAMES_TO_32
#undef EVASERVE_NAMES_TO_16
#undef EVASERVE_NAMES_16

}  // namespace evaserve::ptx
