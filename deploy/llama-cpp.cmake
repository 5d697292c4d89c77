# How `make` compiles llama.cpp for llama-cpp-python: the library that edgetune uses and nothing else, which takes a third
# of the time. CMake reads this file at the start of the project (CMAKE_PROJECT_INCLUDE).

# Left out: images and sound, and the command line tools' common parts with their HTTP client.
set(LLAVA_BUILD OFF)
set(LLAMA_BUILD_COMMON OFF)

# Two extensions of the processor are not used, even where it announces them (docs/llama-cpp.md gives figures):
# - AMX: virtual machines announce it and die of it.
# - AVX512-FP16: llama.cpp's flash attention then takes the head in steps of 128 numbers, and a head of 64 one by one.
# Undefining the compiler's own macro works with every compiler, and does nothing on processors of another kind.
if(NOT MSVC)
    add_compile_options(-U__AMX_INT8__ -U__AVX512FP16__)
endif()
