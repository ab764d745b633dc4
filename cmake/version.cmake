# Writes generated/version.h: LIGHTCONE_VERSION, LIGHTCONE_COMMIT (empty outside git, "+" if the tree is dirty), LIGHTCONE_ARCH.
execute_process(COMMAND git describe --always --dirty=+ --abbrev=10 WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE commit
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
set(text "#pragma once\n#define LIGHTCONE_VERSION \"${VERSION}\"\n#define LIGHTCONE_COMMIT \"${commit}\"\n#define LIGHTCONE_ARCH \"${ARCH}\"\n")
set(old "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUTPUT} "${text}")
endif()
