# CUDA is built where nvcc is found; everything else works without it.
option(LIGHTCONE_CUDA "build the CUDA kernels where nvcc is found" ON)
if(LIGHTCONE_SANITIZE OR LIGHTCONE_FUZZ)
  set(LIGHTCONE_CUDA OFF)  # these are for what the CPU runs
endif()
include(CheckLanguage)
if(LIGHTCONE_CUDA)
  check_language(CUDA)
endif()
if(LIGHTCONE_CUDA AND NOT CMAKE_CUDA_COMPILER AND "$ENV{CI}" STREQUAL "true")
  message(FATAL_ERROR "CUDA: nvcc not found. A continuous integration builds and runs the CUDA kernels; -DLIGHTCONE_CUDA=OFF leaves them out")
endif()
if(NOT LIGHTCONE_CUDA OR NOT CMAKE_CUDA_COMPILER)
  message(STATUS "CUDA: nvcc not found or not wanted, building for the CPU only")
  set(LIGHTCONE_CUDA OFF)
  return()
endif()

# Machine code for A100 and H100, and PTX of both, from which a driver makes code for other GPUs.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90)
endif()
# The libraries are the same for every runtime; an executable links the one that it wants (CMakeLists.txt).
set(CMAKE_CUDA_RUNTIME_LIBRARY None)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # CMake before 3.26 does not know it
set(CMAKE_CUDA_STANDARD 20)
message(STATUS "CUDA: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")

# -lineinfo names lines in tools, -no-compress keeps the PTX readable. Kernels call what is constexpr in the headers.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-lineinfo;-no-compress;--expt-relaxed-constexpr;-Werror=all-warnings>")
# Updates round every product and sum, on both devices.
set_source_files_properties(kernels/optimizer.cu PROPERTIES COMPILE_OPTIONS "-fmad=false;-Xcompiler=-ffp-contract=off")
# fmt switches off constexpr under nvcc, whose host compiler then refuses what is left of it.
add_compile_definitions($<$<COMPILE_LANGUAGE:CUDA>:FMT_USE_CONSTEXPR=1> $<$<COMPILE_LANGUAGE:CUDA>:FMT_CONSTEVAL=>)
