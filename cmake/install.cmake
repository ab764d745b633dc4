# Binary, configs and data: <prefix>/bin/lightcone finds <prefix>/share/lightcone by its own place.
include(GNUInstallDirs)
install(TARGETS lightcone RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/lightcone/configs FILES_MATCHING PATTERN "*.toml")
install(DIRECTORY data/ DESTINATION ${CMAKE_INSTALL_DATADIR}/lightcone/data FILES_MATCHING PATTERN "*.npz" PATTERN "*.npy")
install(FILES README.md LICENSE CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
