#include "tests/support/process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/error.h"

namespace lightcone::test {

Finished lightcone(const std::vector<std::string>& arguments, const std::filesystem::path& folder) {
  int pipes[2];
  if (pipe2(pipes, O_CLOEXEC) != 0) throw Error("test: no pipe");
  const pid_t child = fork();
  if (child < 0) throw Error("test: no child process");
  if (child == 0) {
    dup2(pipes[1], 1);
    dup2(pipes[1], 2);
    if (chdir(folder.c_str()) != 0) _exit(126);
    std::vector<char*> argv{const_cast<char*>(LIGHTCONE_BINARY)};
    for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    execv(LIGHTCONE_BINARY, argv.data());
    _exit(127);
  }
  close(pipes[1]);
  Finished out;
  char buffer[4096];
  for (ssize_t n; (n = read(pipes[0], buffer, sizeof buffer)) > 0;) out.output.append(buffer, n);
  close(pipes[0]);
  int status = 0;
  waitpid(child, &status, 0);
  out.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return out;
}

}  // namespace lightcone::test
