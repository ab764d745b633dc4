#include "gpusim/runtime/peer.h"

#include <array>
#include <atomic>

#include "gpusim/runtime/state.h"

namespace gpusim {

namespace {
std::array<std::atomic<uint64_t>, 64> peers_of;  // by device: a bit for each device whose memory it may touch
}  // namespace

bool may_access(int device, const Memory& memory) {
  for (const Device& owner : state().devices)
    if (&owner.memory == &memory)
      return owner.number == device || (peers_of[static_cast<size_t>(device)] >> owner.number & 1);
  return true;
}

}  // namespace gpusim

using namespace gpusim;

extern "C" {

cudaError_t cudaDeviceCanAccessPeer(int* can, int number, int peer) {
  return call([&](State& s) {
    require(can);
    *can = device_of(s, number).number != device_of(s, peer).number;
  });
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  return call([&](State& s) {
    require(flags == 0);
    require(device_of(s, peer).number != device(s).number, cudaErrorInvalidDevice);
    auto& peers = peers_of[static_cast<size_t>(current_device())];
    require(!(peers >> peer & 1), cudaErrorPeerAccessAlreadyEnabled);
    peers |= uint64_t{1} << peer;
  });
}

cudaError_t cudaDeviceDisablePeerAccess(int peer) {
  return call([&](State& s) {
    require(device_of(s, peer).number != device(s).number, cudaErrorInvalidDevice);
    auto& peers = peers_of[static_cast<size_t>(current_device())];
    require(peers >> peer & 1, cudaErrorPeerAccessNotEnabled);
    peers &= ~(uint64_t{1} << peer);
  });
}

cudaError_t cudaDeviceGetP2PAttribute(int* value, cudaDeviceP2PAttr attribute, int from, int to) {
  return call([&](State& s) {
    require(value && device_of(s, from).number != device_of(s, to).number);
    *value = attribute == cudaDevP2PAttrAccessSupported || attribute == cudaDevP2PAttrNativeAtomicSupported;
  });
}
}
