#include <iostream>

#include "experiments/commands/commands.h"

namespace lightcone {

Device command_device(const std::string& name) {
  return choose_device(name, [](const std::string& line) { std::cerr << line << "\n"; });
}

}  // namespace lightcone
