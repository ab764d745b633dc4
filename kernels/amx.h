#pragma once
#include <cstdint>

// Advanced Matrix Extensions of x86: eight tiles of 16 rows of 64 bytes, and products of tiles of bf16 with f32 sums.
// Code for them is compiled where the compiler may use them (LIGHTCONE_AMX) and runs where available() says so.
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define LIGHTCONE_AMX 1
#include <immintrin.h>
#endif

namespace lightcone::kernels::amx {

/// True if the CPU has the tiles and the operating system lends them to this process, which is asked once.
bool available();

#ifdef LIGHTCONE_AMX
/// All eight tiles of the calling thread, each of 16 rows of 64 bytes, until the end of the scope. Not to be nested.
class Tiles {
 public:
  Tiles() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
  ~Tiles() { _tile_release(); }
};
#endif

}  // namespace lightcone::kernels::amx
