#include "gpusim/runtime/state.h"

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
    Memory& memory = device_of(s, peer).memory;
    require(!memory.seen_by(current_device()), cudaErrorPeerAccessAlreadyEnabled);
    memory.show_to(current_device(), true);
  });
}

cudaError_t cudaDeviceDisablePeerAccess(int peer) {
  return call([&](State& s) {
    require(device_of(s, peer).number != device(s).number, cudaErrorInvalidDevice);
    Memory& memory = device_of(s, peer).memory;
    require(memory.seen_by(current_device()), cudaErrorPeerAccessNotEnabled);
    memory.show_to(current_device(), false);
  });
}

cudaError_t cudaDeviceGetP2PAttribute(int* value, cudaDeviceP2PAttr attribute, int from, int to) {
  return call([&](State& s) {
    require(value && device_of(s, from).number != device_of(s, to).number);
    *value = attribute == cudaDevP2PAttrAccessSupported || attribute == cudaDevP2PAttrNativeAtomicSupported;
  });
}
}
