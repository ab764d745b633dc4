#pragma once
#include <string>

#include "engine/error.h"

namespace lightcone {

/// A run ended by SIGINT, SIGTERM or SIGHUP; what() says how to go on.
class Interrupted : public Error {
 public:
  explicit Interrupted(int signal, const std::string& advice);
  int status() const { return 128 + signal_; }  ///< exit status, as shells count

 private:
  int signal_;
};

/// While this lives, SIGINT, SIGTERM and SIGHUP end the program with a message and status 128 + signal: at once, which
/// harms no file (file.h), or, between defer() and allow(), when the training has saved its state. A second SIGINT ends
/// it at once in any case. A signal that was ignored before stays ignored (nohup). One at a time.
///
///     Interrupts interrupts("nothing was written");
///     Interrupts::defer();
///     for (...) { step(); if (Interrupts::pending()) { save(); Interrupts::allow(); } }
class Interrupts {
 public:
  explicit Interrupts(const std::string& advice);
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  ~Interrupts();

  /// What to tell from now on.
  static void advise(const std::string& advice);
  static void defer();
  /// Throws Interrupted if a signal is pending.
  static void allow();
  static bool pending();
};

}  // namespace lightcone
