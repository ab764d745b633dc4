#pragma once
#include <string>

namespace lightcone {

/// Runs gnuplot on a script for its svg terminal and returns the <svg> element, without XML prolog and tooltips and
/// with ids that no other figure has, so that it can stand in a file or in a page. Where gnuplot is missing or draws
/// nothing it returns "" and logs one warning in the life of the process. The script sees nobody's settings; no file is
/// left behind.
std::string gnuplot_svg(const std::string& script);

}  // namespace lightcone
