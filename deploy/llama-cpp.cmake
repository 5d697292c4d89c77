# How llama.cpp is compiled for llama-cpp-python by `make`. CMake reads this file at the start of the project
# (CMAKE_PROJECT_INCLUDE). benchmarks/decode.py compiles llama.cpp's own tools with it, and sets WITH_TOOLS.

# The library that edgetune uses and nothing else takes half of the time. Left out are images and sound, and the common
# parts of the command line tools.
if(NOT WITH_TOOLS)
    set(LLAVA_BUILD OFF)
    set(LLAMA_BUILD_COMMON OFF)
endif()

# Two extensions of the processor are not used, even where it announces them:
# - AMX: virtual machines announce it and die of it.
# - AVX512-FP16: llama.cpp's flash attention then takes a head in steps of 128 numbers, and a head of 64 one by one.
# To undefine the compiler's own macro works with every compiler, and does nothing on processors of another kind.
if(NOT MSVC)
    add_compile_options(-U__AMX_INT8__ -U__AVX512FP16__)
endif()
