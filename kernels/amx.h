#pragma once
#include <array>
#include <cstdint>
#if defined(__AMX_BF16__)
#include <immintrin.h>
#endif

// Intel's matrix tiles (AMX): eight registers of up to 16 rows of 64 bytes, and products of bf16 tiles that add to f32
// tiles. Code that uses the instructions stands between #if defined(__AMX_BF16__) and asks amx_available() first.
namespace lightcone {

/// True if this build has the instructions, the processor has them too, and Linux lets this process use them (it wants
/// to be asked; that happens once).
bool amx_available();
/// use_amx(false) makes amx_available() say no, so that tests see the other path too; true undoes that.
void use_amx(bool on);

#if defined(__AMX_BF16__)
/// GCC does not know that _tile_loadd reads memory (nor how much _tile_loadconfig reads): between what was written
/// there and the load stands a call of this.
inline void finish_writes() { asm volatile("" ::: "memory"); }

/// The shapes of the tile registers for the calling thread, until the end of the scope. Scopes do not nest; the other
/// threads have tiles of their own.
class AmxTiles {
 public:
  struct Shape {
    int rows = 0, bytes = 0;  ///< of a row
  };
  explicit AmxTiles(const std::array<Shape, 8>& shapes) {
    for (int i = 0; i < 8; ++i) {
      config_.rows[i] = static_cast<uint8_t>(shapes[i].rows);
      config_.bytes[i] = static_cast<uint16_t>(shapes[i].bytes);
    }
    finish_writes();
    _tile_loadconfig(&config_);
  }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
  /// Tiles that are in use make every change of thread save 8 KiB.
  ~AmxTiles() { _tile_release(); }

 private:
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } config_;
  static_assert(sizeof(Config) == 64);
};
#endif

}  // namespace lightcone
