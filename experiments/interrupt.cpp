#include "experiments/interrupt.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <list>

namespace lightcone {

namespace {

constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP};

// Signals belong to the process, and so does this.
std::atomic<int> pending_signal = 0;
std::atomic<bool> deferred = false;
std::atomic<const char*> advice_text = "";

std::string text_of(int signal, const char* advice) {
  return std::string(signal == SIGINT ? "interrupted" : signal == SIGTERM ? "terminated" : "hung up") + ": " + advice;
}

void print(const char* text) { [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text, std::strlen(text)); }

// Only what a signal handler may call.
extern "C" void on_signal(int signal) {
  const bool again = pending_signal.exchange(signal) != 0;
  if (deferred && !(again && signal == SIGINT)) return;
  print(signal == SIGINT ? "\nlightcone: interrupted: " : "\nlightcone: terminated: ");
  print(advice_text);
  print("\n");
  ::_exit(128 + signal);
}

}  // namespace

Interrupted::Interrupted(int signal, const std::string& advice)
    : Error(text_of(signal, advice.c_str())), signal_(signal) {}

Interrupts::Interrupts(const std::string& advice) {
  advise(advice);
  for (int signal : signals)
    if (std::signal(signal, on_signal) == SIG_IGN) std::signal(signal, SIG_IGN);
}

Interrupts::~Interrupts() {
  for (int signal : signals)
    if (std::signal(signal, SIG_DFL) == SIG_IGN) std::signal(signal, SIG_IGN);
  deferred = false;
  pending_signal = 0;
}

void Interrupts::advise(const std::string& advice) {
  static std::list<std::string> texts;  // a handler may still read an earlier one
  advice_text = texts.emplace_back(advice).c_str();
}

void Interrupts::defer() { deferred = true; }

void Interrupts::allow() {
  deferred = false;
  if (const int signal = pending_signal) throw Interrupted(signal, advice_text.load());
}

bool Interrupts::pending() { return pending_signal != 0; }

}  // namespace lightcone
