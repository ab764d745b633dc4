#include "tests/support/process.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>

#include "engine/error.h"

namespace lightcone::test {

Child::Child(const std::vector<std::string>& arguments, const std::filesystem::path& folder, Options options) {
  // A file without a name: a child can block on no pipe.
  std::string name = (std::filesystem::temp_directory_path() / "lightcone_output_XXXXXX").string();
  output_ = mkostemp(name.data(), O_CLOEXEC);
  if (output_ < 0) throw Error("test: no file for the output");
  unlink(name.c_str());
  std::vector<char*> argv{const_cast<char*>(options.program)};
  for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  child_ = fork();
  if (child_ < 0) throw Error("test: no child process");
  if (child_ > 0) return;
  dup2(output_, 1);
  dup2(output_, 2);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, SIG_DFL);  // a shell's background jobs ignore them
  if (options.file_limit) {
    const rlimit limit{options.file_limit, options.file_limit};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  if (options.unprivileged && geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(126);
  if (chdir(folder.c_str()) != 0) _exit(126);
  execv(options.program, argv.data());
  _exit(127);
}

Child::~Child() {
  if (running()) kill(child_, SIGKILL), reap(true);
  close(output_);
}

void Child::reap(bool wait) {
  if (ended_) return;
  pid_t got = 0;
  while ((got = waitpid(child_, &status_, wait ? 0 : WNOHANG)) < 0 && errno == EINTR) {
  }
  ended_ = got == child_;
}

bool Child::running() {
  reap(false);
  return !ended_;
}

void Child::send(int signal) {
  if (running()) kill(child_, signal);
}

bool Child::wait_for(const std::function<bool()>& done, double seconds) {
  using Clock = std::chrono::steady_clock;
  for (const auto start = Clock::now(); !done(); usleep(500))
    if (!running() || Clock::now() - start > std::chrono::duration<double>(seconds)) return done();
  return true;
}

Finished Child::finish() {
  reap(true);
  Finished out;
  char buffer[4096];
  lseek(output_, 0, SEEK_SET);
  for (ssize_t n; (n = read(output_, buffer, sizeof buffer)) > 0;) out.output.append(buffer, n);
  out.status = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  return out;
}

Finished lightcone(const std::vector<std::string>& arguments, const std::filesystem::path& folder) {
  return Child(arguments, folder).finish();
}

}  // namespace lightcone::test
